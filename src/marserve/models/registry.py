"""Names, versions, defaults and routes: which version a request means."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from marserve.errors import Conflict, Forbidden, ModelNotFound, VersionNotFound, about
from marserve.models.model import ModelVersion
from marserve.models.routes import Route


class Model:
    """A name with its versions, one of which is the default."""

    __slots__ = ("default", "name", "versions")

    def __init__(self, first: ModelVersion) -> None:
        self.name = first.name
        self.default = first
        self.versions: dict[str, ModelVersion] = {first.version: first}


class Registry:
    """Every version that can be asked for, by name and version."""

    def __init__(self) -> None:
        self.models: dict[str, Model] = {}
        #: Segments of a path -> method -> model, of all routes that a version which is here has named.
        self._routes: dict[tuple[str, ...], dict[str, str]] = {}

    def __iter__(self) -> Iterator[ModelVersion]:
        for model in list(self.models.values()):
            yield from list(model.versions.values())

    def check_free(self, name: str, version: str, routes: Sequence[Route] = ()) -> None:
        """Raise Conflict when the name and version are taken, or a route is another model's."""
        model = self.models.get(name)
        if model is not None and version in model.versions:
            error = Conflict(
                f"Model version {version} is already registered for model {name}",
                "Unregister it first, or register the archive under another version.",
            )
            raise about(error, name, version)
        for route in routes:
            owner = self.methods_at(route.segments).get(route.method, name)
            if owner != name:
                error = Conflict(
                    f"The route {route} of {name} is one of model {owner} already.",
                    f"Unregister {owner}, or name another route in model-config.yaml.",
                )
                raise about(error, name, version)

    def add(self, version: ModelVersion) -> None:
        """Add a version; the first of a name becomes its default.

        Raises:
            Conflict: the name and version are taken, or one of its routes.
        """
        self.check_free(version.name, version.version, version.config.routes)
        model = self.models.get(version.name)
        if model is None:
            self.models[version.name] = Model(version)
        else:
            model.versions[version.version] = version
        self._find_routes()

    def methods_at(self, segments: tuple[str, ...]) -> Mapping[str, str]:
        """Return the methods that archives have named for a path, each with its model."""
        return self._routes.get(segments, {})

    def _find_routes(self) -> None:
        """Make the table anew: a route stays as long as any version of its model names it."""
        self._routes = {}
        for version in self:
            for route in version.config.routes:
                self._routes.setdefault(route.segments, {})[route.method] = version.name

    def model(self, name: str) -> Model:
        """Return a model.

        Raises:
            ModelNotFound: there is none of that name.
        """
        model = self.models.get(name)
        if model is None:
            raise about(ModelNotFound(f"Model not found: {name}"), name, None)
        return model

    def find(self, name: str, version: str | None) -> ModelVersion:
        """Return a version, the default one for None.

        Raises:
            ModelNotFound: there is no model of that name.
            VersionNotFound: the model has no such version.
        """
        model = self.models.get(name)
        if model is None:
            raise about(ModelNotFound(f"Model not found: {name}"), name, None)
        if version is None:
            return model.default
        found = model.versions.get(version)
        if found is None:
            known = ", ".join(sorted(model.versions))
            error = VersionNotFound(
                f"Model version: {version} does not exist for model: {name}", f"Its versions are {known}."
            )
            raise about(error, name, version)
        return found

    def set_default(self, name: str, version: str) -> None:
        """Make a version the one that requests without a version get.

        Raises:
            ModelNotFound, VersionNotFound: see ``find``.
        """
        found = self.find(name, version)
        self.models[name].default = found

    def remove(self, name: str, version: str | None) -> ModelVersion:
        """Take a version out, so that no new request reaches it, and return it.

        Raises:
            ModelNotFound, VersionNotFound: see ``find``.
            Forbidden: it is the default and others exist.
        """
        found = self.find(name, version)
        model = self.models[name]
        if found is model.default and len(model.versions) > 1:
            error = Forbidden(
                f"Cannot remove default version for model {name}",
                "Make another version the default first: PUT /models/{model}/{version}/set-default.",
            )
            raise about(error, name, found.version)
        self.discard(found)
        return found

    def discard(self, version: ModelVersion) -> bool:
        """Take a version out and return whether it was here; was it the default, the oldest other one becomes it."""
        model = self.models.get(version.name)
        if model is None or model.versions.get(version.version) is not version:
            return False
        del model.versions[version.version]
        if not model.versions:
            del self.models[version.name]
        elif model.default is version:
            model.default = next(iter(model.versions.values()))
        self._find_routes()
        return True
