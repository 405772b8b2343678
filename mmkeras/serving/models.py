"""The models of a server: which versions lie on disk, which are loaded, and which one a request means."""

import contextlib
import dataclasses
import logging
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from mmkeras.serving.errors import ServingError, echoed, invalid, unexpected
from mmkeras.serving.servable import Servable

_LOGGER = logging.getLogger(__name__)
_VERSION = re.compile("[0-9]{1,18}")
START, LOADING, AVAILABLE, UNLOADING, END = "START", "LOADING", "AVAILABLE", "UNLOADING", "END"


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """What is served under a name.

    Args:
        name: of the model.
        base_path: folder of its versions, absolute.
        policy: `("latest", how many)`, `("all",)`, or `("specific", versions)`.
        labels: `{label: version}`.
        platform: `"tensorflow"`.
    """

    name: str
    base_path: str
    policy: tuple[Any, ...] = ("latest", 1)
    labels: dict[str, int] = dataclasses.field(default_factory=dict)
    platform: str = "tensorflow"


@dataclasses.dataclass
class Version:
    """A version and how far it has come.

    Args:
        state: `"START"`, `"LOADING"`, `"AVAILABLE"`, `"UNLOADING"` or `"END"`.
        servable: the loaded model, while it is available.
        error: why it could not be loaded, or None.
        tries: how often that was tried since its folder came.
        tried: when it was tried last, by `time.monotonic`.
    """

    state: str = START
    servable: Servable | None = None
    error: ServingError | None = None
    tries: int = 0
    tried: float = 0.0


class Models:
    """All models of a server; `poll` looks at the disk again, `watch` does it every so often.

    A version is unloaded when what takes its place has been loaded, and never for one that cannot be.

    Args:
        configs: ModelConfigs.
        retries: how often the loading of a version is tried again.
        retry_seconds: how long after.
        warm_up: function of a Servable, called before it becomes available; or None.
    """

    def __init__(
        self,
        configs: Iterable[ModelConfig] = (),
        retries: int = 5,
        retry_seconds: float = 60.0,
        warm_up: Callable[[Servable], object] | None = None,
    ) -> None:
        self.retries, self.retry_seconds, self.warm_up = retries, retry_seconds, warm_up
        self._configs: dict[str, ModelConfig] = {}
        self._versions: dict[str, dict[int, Version]] = {}
        self._changing = threading.RLock()  # one poll or reload at a time
        self._stop = threading.Event()
        self.configure(configs, strict=False)

    # Requests ---------------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def using(self, name: str, version: int | None = None, label: str | None = None) -> Iterator[Servable]:
        """The loaded version that a request means, kept loaded while it is used; see `servable`."""
        servable = self.servable(name, version, label)
        while not servable.hold():  # another has just taken its place
            servable = self.servable(name, version, label)
        try:
            yield servable
        finally:
            servable.let_go()

    def servable(self, name: str, version: int | None = None, label: str | None = None) -> Servable:
        """The loaded version that a request means; the latest if it says neither version nor label.

        Raises:
            ServingError: if there is none.
        """
        if label:
            config = self._configs.get(name)
            if config is None or label not in config.labels:
                raise invalid(f"Unrecognized servable version label: {echoed(label)}")
            version = config.labels[label]
        versions = self._versions.get(name, {})
        if version is None:
            # A list first, at once: others may add a version meanwhile.
            loaded = [number for number, one in list(versions.items()) if one.servable is not None]
            if not loaded:
                raise ServingError("NOT_FOUND", f"Servable not found for request: Latest({echoed(name)})")
            version = max(loaded)
        servable = versions[version].servable if version in versions else None
        if servable is None:
            raise ServingError("NOT_FOUND", f"Servable not found for request: Specific({echoed(name)}, {version})")
        return servable

    def status(self, name: str, version: int | None = None) -> list[tuple[int, Version]]:
        """`[(number, Version)]`, the newest first.

        Raises:
            ServingError: if the model, or that version, is not known.
        """
        versions = self._versions.get(name, {})
        if version is not None and version not in versions:
            raise ServingError("NOT_FOUND", f"Could not find version {version} of model {echoed(name)}")
        if not versions:
            raise ServingError("NOT_FOUND", f"Could not find any versions of model {echoed(name)}")
        numbers = sorted(versions, reverse=True) if version is None else [version]
        return [(number, versions[number]) for number in numbers]

    @property
    def names(self) -> list[str]:
        """Of all models, sorted."""
        return sorted(self._configs)

    def knows(self, name: str) -> bool:
        """Whether any version of a model has been seen."""
        return bool(self._versions.get(name))

    def without_versions(self) -> dict[str, str]:
        """`{name: why}` of the models of which there is no version to serve."""
        return {name: _why_none(config) for name, config in self._configs.items() if not self.knows(name)}

    # Changes ----------------------------------------------------------------------------------------------------------

    def configure(self, configs: Iterable[ModelConfig], strict: bool = True) -> None:
        """Serves these models and no others.

        Args:
            configs: ModelConfigs.
            strict: whether it is an error if one that was not served before has no version that can be loaded; a
                label to a version that is not loaded is one in any case.

        Raises:
            ServingError: on a configuration that cannot be; nothing has changed then.
        """
        with self._changing:
            found = self._checked(configs)
            new = [name for name in found if name not in self._configs]
            before, self._configs = self._configs, {**found, **self._configs}
            try:
                for name in new:
                    self._poll_one(found[name])
                if strict:
                    self._check_loaded(new)
                self._check_labels(found.values())
            except ServingError:
                for name in new:
                    self._unload_all(name)
                    del self._versions[name]
                self._configs = before
                raise
            self._configs = found
            for name in set(before) - set(found):
                self._unload_all(name)
            self.poll()

    def _checked(self, configs):
        found = {}
        for config in configs:
            if config.name in found:
                raise invalid(f"Illegal to list model {echoed(config.name)} multiple times in config list")
            if not pathlib.PurePath(config.base_path).is_absolute():
                raise invalid(
                    f"Expected model {echoed(config.name, 128)} to have an absolute path or URI; got "
                    f"base_path()={echoed(config.base_path, 128)}"
                )
            if config.platform != "tensorflow":
                if config.name in self._configs:
                    raise invalid("Illegal to change a model's platform.")
                raise invalid(
                    f"Model {echoed(config.name, 128)} requests unsupported platform {echoed(config.platform, 128)}"
                )
            found[config.name] = config
        return found

    def _check_loaded(self, names):
        failed = [name for name in names if not self._loaded(name)]
        if failed:
            said = f"{len(failed)} servable(s) did not become available: {{{echoed(', '.join(failed))}}}"
            raise ServingError("UNKNOWN", said)

    def _check_labels(self, configs):
        for config in configs:
            for label, version in config.labels.items():
                one = self._versions.get(config.name, {}).get(version)
                if one is None or one.servable is None:
                    raise ServingError(
                        "FAILED_PRECONDITION",
                        f"Request to assign label {echoed(label, 128)} to version {version} of model "
                        f"{echoed(config.name, 128)}, which is not currently available for inference",
                    )

    def poll(self) -> None:
        """Looks at the disk: loads what is new, unloads what is no longer wanted."""
        with self._changing:
            for config in list(self._configs.values()):
                self._poll_one(config)

    def watch(self, seconds: float = 1.0) -> None:
        """Polls every so often, in a thread of its own, until `close`."""

        def loop():
            while not self._stop.wait(seconds):
                self.poll()

        threading.Thread(target=loop, name="watch models", daemon=True).start()

    def close(self) -> None:
        """Ends the watch and frees all models when their requests are done."""
        self._stop.set()
        if self._changing.acquire(timeout=1.0):  # a large version that is being loaded is not waited for
            for name in list(self._configs):
                self._unload_all(name)
            self._changing.release()

    def _poll_one(self, config):
        versions = self._versions.setdefault(config.name, {})
        try:
            wanted = self._wanted(config)
        except OSError as error:  # the next look may find it
            _LOGGER.warning("Cannot read the folder of model %s: %s", config.name, error.strerror)
            return
        for number in wanted:
            one = versions.setdefault(number, Version())
            if one.state == END and (one.error is None or not one.tries):
                versions[number] = one = Version()  # it was unloaded, or its folder gone, and is wanted again
            if one.servable is None and one.state != END:
                self._load(config.name, number, wanted[number], one)
        ready = [number for number in wanted if versions[number].servable is not None]
        for number, one in list(versions.items()):
            # What is no longer wanted goes when something that is wanted is there in its place.
            if one.servable is not None and number not in wanted and (ready or not wanted):
                self._unload(one)
            elif one.servable is None and number not in wanted:
                one.state, one.tries = END, 0

    def _wanted(self, config):
        found = {}
        base = pathlib.Path(config.base_path)
        if base.is_dir():
            found = {int(path.name): path for path in base.iterdir() if _VERSION.fullmatch(path.name) and path.is_dir()}
        numbers = sorted(found)
        how, *rest = config.policy
        if how == "latest":
            numbers = numbers[-rest[0] :]
        elif how == "specific":
            numbers = [number for number in numbers if number in rest[0]]
        return {number: found[number] for number in numbers}

    def _load(self, name, number, path, one):
        if one.tries and time.monotonic() - one.tried < self.retry_seconds:
            return
        one.state, one.tried, one.tries = LOADING, time.monotonic(), one.tries + 1
        try:
            servable = self._ready(name, number, path)
        except Exception as error:  # one model's fault is not the others'
            one.error = error if isinstance(error, ServingError) else unexpected(error)
            if one.tries == 1:
                _LOGGER.warning("%s, version %d: %s", name, number, one.error.message)
            if one.tries > self.retries:
                one.state = END
            return
        one.servable, one.state, one.error = servable, AVAILABLE, None

    def _ready(self, name, number, path):
        """A version, loaded and warm."""
        servable = Servable(name, number, path)
        try:
            if self.warm_up:
                self.warm_up(servable)
        except BaseException:
            servable.close()
            raise
        return servable

    def _unload(self, one):
        servable, one.servable, one.state = one.servable, None, UNLOADING
        servable.close()
        one.state = END

    def _unload_all(self, name):
        for one in self._versions.get(name, {}).values():
            if one.servable is not None:
                self._unload(one)

    def _loaded(self, name):
        return any(one.servable is not None for one in list(self._versions.get(name, {}).values()))


def _why_none(config):
    if not pathlib.Path(config.base_path).is_dir():
        return f"There is no folder {config.base_path}."
    if config.policy[0] == "specific":
        return f"None of the versions {', '.join(map(str, config.policy[1]))} is in {config.base_path}."
    return f"There is no folder of a version, such as 1, in {config.base_path}."
