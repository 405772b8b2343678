"""Figures of a server in Prometheus' text form, under the names that TensorFlow Serving gives them."""

import bisect
import threading
import time

BUCKETS = [10 * 1.8**i for i in range(33)]  # microseconds
_PREFIX = ":tensorflow:serving:"


class Metrics:
    """Counts requests and their times.

    Example:

    >>> metrics = Metrics()
    >>> metrics.request("half_plus_two", "predict", "OK", 120.0)
    >>> print(metrics.text().splitlines()[1])
    :tensorflow:serving:request_count{model_name="half_plus_two",status="OK"} 1
    """

    def __init__(self):
        self._lock = threading.Lock()
        self._counts = {}
        self._times = {"request_latency": {}, "runtime_latency": {}}

    def request(self, model, entrypoint, status, request_micros):
        """Notes a request.

        Args:
            model: its name; requests for models that are not served are counted under `""`.
            entrypoint: `"predict"`, `"classify"` …
            status: a name of `errors.HTTP_STATUS`.
            request_micros: its whole time in microseconds.
        """
        with self._lock:
            self._counts[model, status] = self._counts.get((model, status), 0) + 1
            self._note("request_latency", model, entrypoint, request_micros)

    def timed(self, runner, entrypoint):
        """A runner, see `Rest`, whose times are noted as TensorFlow's part of requests, those in a batch's queue, too.

        Args:
            runner: function such as `run_alone`.
            entrypoint: see `request`.
        """

        def run(servable, key, feeds, outputs=None, timeout_ms=None):
            began = time.perf_counter()
            found = runner(servable, key, feeds, outputs, timeout_ms)
            micros = (time.perf_counter() - began) * 1e6
            with self._lock:
                self._note("runtime_latency", servable.name, entrypoint, micros)
            return found

        return run

    def _note(self, figure, model, entrypoint, micros):
        found = self._times[figure].get((model, entrypoint))
        if found is None:
            found = self._times[figure][model, entrypoint] = [0] * (len(BUCKETS) + 1), [0.0]
        counts, total = found
        counts[bisect.bisect_left(BUCKETS, micros)] += 1
        total[0] += micros

    def counts(self):
        """`{(model, status): requests}`."""
        with self._lock:
            return dict(self._counts)

    def text(self):
        """All figures, as Prometheus reads them."""
        with self._lock:
            lines = [f"# TYPE {_PREFIX}request_count counter"]
            for (model, status), count in sorted(self._counts.items()):
                lines.append(f'{_PREFIX}request_count{{model_name="{_escaped(model)}",status="{status}"}} {count}')
            for name, times in self._times.items():
                lines.append(f"# TYPE {_PREFIX}{name} histogram")
                for (model, entrypoint), (counts, total) in sorted(times.items()):
                    labels = f'model_name="{_escaped(model)}",API="{entrypoint}"'
                    lines += _histogram(f"{_PREFIX}{name}", labels, counts, total[0])
        return "\n".join(lines) + "\n"


def _histogram(name, labels, counts, total):
    seen, lines = 0, []
    for limit, count in zip([*map("{:.6g}".format, BUCKETS), "+Inf"], counts, strict=True):
        seen += count
        lines.append(f'{name}_bucket{{{labels},le="{limit}"}} {seen}')
    return [*lines, f"{name}_sum{{{labels}}} {total:.6g}", f"{name}_count{{{labels}}} {seen}"]


def _escaped(text):
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
