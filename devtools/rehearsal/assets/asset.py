"""What all versioned assets have in common: versions that keep their content, containers told by their versions, lists.

    class Environments(Asset): ...
    ROUTES = Environments().routes()

A container has no document of its own until somebody gives it one (a description, tags, archived): that there is one
follows from its versions, and so do its latest and its next version.
"""

from __future__ import annotations

import re
from typing import Any, ClassVar

from devtools.rehearsal import MANAGEMENT_HOST, WORKSPACE_PATH
from devtools.rehearsal.resources import envelope, sent_properties
from devtools.rehearsal.store import Document
from devtools.rehearsal.wire import Answer, Call, Route, WireError, missing, page

#: Names of assets and of versions.
NAME = re.compile(r"^[a-zA-Z0-9][a-zA-Z0-9\-_.]{0,254}$")
#: What a list shows where nothing is said, and what that means for an archived one.
VIEWS = {"activeonly": {False}, "archivedonly": {True}, "all": {False, True}}
#: What may be changed of a version that is there.
CHANGEABLE = ("description", "tags", "properties", "isArchived", "stage", "autoDeleteSetting")


class Asset:
    """One kind of asset; its subclasses say what its versions are made of."""

    kind: ClassVar[str]
    """The path's segment, and the kind of its documents in the store."""
    title: ClassVar[str]
    """As messages name it."""
    fixed: ClassVar[tuple[str, ...]]
    """Properties that stay what they were when the version was made."""
    longest_version: ClassVar[int] = 255

    def checked(self, call: Call, sent: dict[str, Any]) -> dict[str, Any]:
        """A version's own properties as they are kept; raises WireError where the service would not take them."""
        raise NotImplementedError

    def container_properties(self, newest: dict[str, Any]) -> dict[str, Any]:
        """What a container has beside the usual, by the properties of its newest version."""
        return {}

    # versions

    def get_version(self, call: Call) -> Document:
        """One version."""
        key = self._key(call)
        found = call.rehearsal.store.get(self.kind, key)
        if found is None:
            raise missing(self.title, key.replace("/", ":"))
        return found

    def put_version(self, call: Call) -> Answer:
        """Make a version, or change what may be changed of one."""
        name, version = call.params["name"], call.params["version"]
        self.check_names(name, version)
        sent = sent_properties(call)
        common = {
            "description": sent.get("description"),
            "tags": _texts(sent.get("tags"), "tags"),
            "properties": _texts(sent.get("properties"), "properties"),
            "isArchived": bool(sent.get("isArchived")),
            "isAnonymous": bool(sent.get("isAnonymous")),
        }
        properties = common | self.checked(call, sent) | {"provisioningState": "Succeeded"}
        store, key = call.rehearsal.store, self._key(call)
        before = store.get(self.kind, key)
        if before:
            there = before["properties"]
            if any(there.get(field) != properties.get(field) for field in self.fixed):
                raise self.conflict()
            properties = there | {field: properties[field] for field in CHANGEABLE if field in properties}
        document = envelope(f"{self.kind}/{name}/versions/{version}", properties, call, before)
        if before and "_" in before:
            document["_"] = before["_"]
        return Answer(200 if before else 201, store.put(self.kind, key, document))

    def delete_version(self, call: Call) -> Answer:
        """Delete one version."""
        return Answer(200 if call.rehearsal.store.delete(self.kind, self._key(call)) else 204)

    def list_versions(self, call: Call) -> Document:
        """Versions of one name, newest first unless `$orderBy` says otherwise; `$top` and `$skip` make pages."""
        found = self._versions(call, call.params["name"])
        if not found:
            raise missing(self.title, call.params["name"])
        found = _viewed(found, call)
        return _paged(_ordered(found, call.query.get("$orderBy")), call)

    # containers

    def get_container(self, call: Call) -> Document:
        """What there is under one name."""
        return self._container(call, call.params["name"])

    def put_container(self, call: Call) -> Answer:
        """Describe, tag or archive all that is under one name."""
        name = call.params["name"]
        self.check_names(name)
        sent = sent_properties(call)
        before = call.rehearsal.store.get(self._containers, name)
        kept = {
            "description": sent.get("description"),
            "tags": _texts(sent.get("tags"), "tags"),
            "properties": _texts(sent.get("properties"), "properties"),
            "isArchived": bool(sent.get("isArchived")),
        }
        call.rehearsal.store.put(self._containers, name, envelope(f"{self.kind}/{name}", kept, call, before))
        return Answer(200 if before else 201, self._container(call, name))

    def list_containers(self, call: Call) -> Document:
        """All names, each once."""
        names = {
            key.rpartition("/")[0].lower(): key.rpartition("/")[0] for key, _ in call.rehearsal.store.all(self.kind)
        }
        return _paged(_viewed([self._container(call, name) for name in names.values()], call), call)

    def routes(self) -> list[Route]:
        """The calls of this kind."""
        every = f"{WORKSPACE_PATH}/{self.kind}"
        handlers = [
            ("GET", every, self.list_containers),
            ("GET", every + "/{name}", self.get_container),
            ("PUT", every + "/{name}", self.put_container),
            ("GET", every + "/{name}/versions", self.list_versions),
            ("GET", every + "/{name}/versions/{version}", self.get_version),
            ("PUT", every + "/{name}/versions/{version}", self.put_version),
            ("DELETE", every + "/{name}/versions/{version}", self.delete_version),
        ]
        return [Route(method, MANAGEMENT_HOST, path, handler) for method, path, handler in handlers]

    # what subclasses use

    def check_names(self, name: str, version: str = "1") -> None:
        """Raise WireError unless the service would take the name and the version."""
        for what, value, longest in (("name", name, 255), ("version", version, self.longest_version)):
            if not NAME.match(value) or len(value) > longest:
                raise WireError(
                    400,
                    "UserError",
                    f"{self.title} {what} {value} is invalid. It must have 1 to {longest} characters, which can be "
                    "letters, digits, dashes, underscores and full stops, and begin with a letter or a digit.",
                )

    def conflict(self) -> WireError:
        """409: the version is there with another content."""
        thing = self.title.lower()
        return WireError(
            409,
            "UserError",
            f"A {thing} version with this name and version already exists. If you are trying to create a new {thing} "
            "version, use a different name or version. If you are trying to update an existing one, its "
            f"{' and '.join(self.fixed)} cannot be changed. Only tags, description, and isArchived can be updated.",
        )

    @property
    def _containers(self) -> str:
        return f"{self.kind}-containers"

    def _key(self, call: Call) -> str:
        return f"{call.params['name']}/{call.params['version']}"

    def _versions(self, call: Call, name: str) -> list[Document]:
        """All versions under a name, oldest first."""
        return [document for _, document in call.rehearsal.store.all(self.kind, f"{name}/")]

    def _container(self, call: Call, name: str) -> Document:
        described = call.rehearsal.store.get(self._containers, name)
        versions = self._versions(call, name)
        if not versions and described is None:
            raise missing(self.title, name)
        first = described or versions[0]
        newest = versions[-1] if versions else None
        numbers = [int(one["name"]) for one in versions if one["name"].isdigit()]
        properties = {
            "description": None,
            "tags": {},
            "properties": {},
            "isArchived": False,
            **(described["properties"] if described else {}),
            "latestVersion": newest["name"] if newest else None,
            "nextVersion": str(max(numbers, default=0) + 1),
            "provisioningState": "Succeeded",
            **self.container_properties(newest["properties"] if newest else {}),
        }
        document = envelope(f"{self.kind}/{name}", properties, None)
        return document | {"systemData": first["systemData"]}


def _texts(sent: Any, field: str) -> dict[str, str]:
    """A map of texts; raises WireError when it is none."""
    sent = sent or {}
    if not isinstance(sent, dict):
        raise WireError(400, "UserError", f"The field {field} must be an object whose values are texts.")
    return {key: str(value) for key, value in sent.items() if value is not None}


def _viewed(documents: list[Document], call: Call) -> list[Document]:
    """Those of `listViewType`."""
    wanted = VIEWS.get(call.query.get("listViewType", "ActiveOnly").lower())
    if wanted is None:
        raise WireError(
            400, "UserError", f"listViewType {call.query['listViewType']}: ActiveOnly, ArchivedOnly or All."
        )
    return [one for one in documents if bool(one["properties"].get("isArchived")) in wanted]


def _ordered(documents: list[Document], order: str | None) -> list[Document]:
    """Oldest first as they come, put into the order that is asked for; by default newest first."""
    field, _, direction = (order or "createdtime desc").partition(" ")
    if field.lower() not in ("createdtime", "updatedtime", "createdat", "updatedat"):
        raise WireError(400, "UserError", f"$orderBy {order}: createdtime or updatedtime, asc or desc.")
    if field.lower().startswith("updated"):
        documents = sorted(documents, key=lambda one: one["systemData"]["lastModifiedAt"])
    return list(reversed(documents)) if direction.strip().lower() == "desc" else documents


def _paged(values: list[Document], call: Call) -> Document:
    """The page that `$top` and `$skip` ask for, with the way to the next one."""
    try:
        top, skip = (int(call.query.get(name) or 0) for name in ("$top", "$skip"))
    except ValueError as error:
        raise WireError(400, "UserError", "$top and $skip must be whole numbers.") from error
    answer = page(values[skip : skip + top] if top else values[skip:])
    if top and skip + top < len(values):
        others = "".join(f"&{key}={value}" for key, value in call.query.items() if key not in ("$skip", "api-version"))
        answer["nextLink"] = (
            f"https://{call.host}{call.path}?api-version={call.query.get('api-version', '')}{others}&$skip={skip + top}"
        )
    return answer
