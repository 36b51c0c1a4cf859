"""The three patch formats as pure functions: JSON patch (RFC 6902), merge patch (RFC 7396), strategic merge patch.

The strategic form goes as far as the objects of the sandbox need: maps merge, the lists named in `MERGED_LISTS` merge
by their key, every other list is replaced; `$patch`, `$retainKeys`, `$deleteFromPrimitiveList` and `$setElementOrder`
are obeyed. Documents may be changed in place: callers hand in their own copy.
"""

from typing import Any

from sandbox.api.errors import ApiError, Object, bad_request

# path -> merge key; "" merges a list of plain values by value
MERGED_LISTS: dict[tuple[str, ...], str] = {
    ("metadata", "finalizers"): "",
    ("metadata", "ownerReferences"): "uid",
    ("secrets",): "name",
    ("imagePullSecrets",): "name",
    ("spec", "containers"): "name",
    ("spec", "volumes"): "name",
    ("spec", "drivers"): "name",
    ("spec", "taints"): "key",
    ("status", "addresses"): "type",
    ("status", "conditions"): "type",
}


def merge(document: Any, patch: Any) -> Any:
    """RFC 7396: null deletes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    # RFC 7396: a patch with members makes an object of whatever was there before.
    result = document if isinstance(document, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def strategic(document: Object, patch: Object, path: tuple[str, ...] = ()) -> Object:
    """The Kubernetes merge: like `merge`, with lists that merge and directives beginning with a dollar."""
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    # The whole map is replaced, without the directive itself.
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    retained = patch.get("$retainKeys")
    if retained is not None:
        document = {name: value for name, value in document.items() if name in retained}
    for name, value in patch.items():
        # Directives are obeyed at the end, when the lists they speak of are merged.
        if name.startswith("$"):
            continue
        here = (*path, name)
        if value is None:
            document.pop(name, None)
        elif isinstance(value, dict):
            before = document.get(name)
            document[name] = strategic(before if isinstance(before, dict) else {}, value, here)
        elif isinstance(value, list) and here in MERGED_LISTS:
            document[name] = _merge_list(document.get(name) or [], value, here)
        else:
            document[name] = value
    _obey_list_directives(document, patch, path)
    return document


def _identity(entry: Any, path: tuple[str, ...]) -> Any:
    """What tells an entry of a merged list from the others."""
    key = MERGED_LISTS[path]
    return entry.get(key) if key else entry


def _merge_list(before: list[Any], patch: list[Any], path: tuple[str, ...]) -> list[Any]:
    key = MERGED_LISTS[path]
    # One such entry anywhere makes the patch's list replace the object's.
    if any(entry == {"$patch": "replace"} for entry in patch):
        return [entry for entry in patch if "$patch" not in entry]
    merged = {_identity(entry, path): entry for entry in before}
    for entry in patch:
        # Without its key an entry could not be told from the others; the server refuses it too.
        if key and key not in entry:
            raise bad_request(f"map: {entry} does not contain declared merge key: {key}")
        identity = _identity(entry, path)
        if key and entry.get("$patch") == "delete":
            merged.pop(identity, None)
        else:
            merged[identity] = strategic(merged.get(identity, {}), entry, path) if key else entry
    return _arrange(merged, [_identity(entry, path) for entry in patch], [_identity(entry, path) for entry in before])


def _arrange(entries: dict[Any, Any], patched: list[Any], before: list[Any]) -> list[Any]:
    """The entries in the server's order: those of the patch in its order, the others in the object's, the two
    interleaved by where they stood in the object; a new entry does not wait for any that is only in the object."""
    first = [identity for identity in dict.fromkeys(patched) if identity in entries]
    second = [identity for identity in entries if identity not in patched]
    arranged: list[Any] = []
    while first and second:
        # A new entry has no place in the object and therefore comes before what is left there.
        stood = before.index(first[0]) if first[0] in before else -1
        arranged.append((first if stood < before.index(second[0]) else second).pop(0))
    return [entries[identity] for identity in arranged + first + second]


def _obey_list_directives(document: Object, patch: Object, path: tuple[str, ...]) -> None:
    for name, values in patch.items():
        directive, _, field = name.partition("/")
        if directive == "$deleteFromPrimitiveList" and field in document:
            document[field] = [value for value in document[field] if value not in values]
        elif directive == "$setElementOrder" and isinstance(document.get(field), list):
            here = (*path, field)
            present = {_identity(entry, here): entry for entry in document[field]}
            document[field] = _arrange(present, [_identity(entry, here) for entry in values], list(present))
        # Go's `omitempty`: an emptied list is not written out, and clients see it as absent.
        if document.get(field) == []:
            del document[field]


def json_patch(document: Any, operations: Any) -> Any:
    """RFC 6902. An operation that cannot be applied refuses the whole patch."""
    if not isinstance(operations, list):
        raise bad_request("json patch must be an array of operations")
    for operation in operations:
        if not isinstance(operation, dict) or "op" not in operation or "path" not in operation:
            raise bad_request("json patch operation needs op and path")
        document = _apply(document, operation)
    return document


def _apply(document: Any, operation: Object) -> Any:
    action, target = operation["op"], _pointer(operation["path"])
    if action in ("add", "replace", "test"):
        if "value" not in operation:
            raise bad_request(f"json patch {action} needs a value")
        value = operation["value"]
        # The guard of a patch: what it finds otherwise refuses all of it, also what came before.
        if action == "test":
            if _read(document, target) != value:
                raise _unprocessable(f"testing path {operation['path']!r} failed")
            return document
        # Reads first, because only what is there can be replaced.
        if action == "replace":
            _read(document, target)
            return _write(document, target, value, insert=False)
        return _write(document, target, value, insert=True)
    if action == "remove":
        return _remove(document, target)
    if action in ("move", "copy"):
        source = _pointer(operation.get("from", ""))
        value = _read(document, source)
        if action == "move":
            document = _remove(document, source)
        return _write(document, target, value, insert=True)
    raise bad_request(f"unexpected json patch operation {action!r}")


def _unprocessable(why: str) -> ApiError:
    return ApiError(422, "Invalid", f"the server rejected our request due to an error in our request: {why}")


def _pointer(path: str) -> list[str]:
    if path and not path.startswith("/"):
        raise bad_request(f"json pointer {path!r} must begin with a slash")
    # RFC 6901: in this order, so that `~01` means `~1` and not a slash.
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _step(container: Any, step: str) -> Any:
    if isinstance(container, dict) and step in container:
        return container[step]
    if isinstance(container, list) and step.isdigit() and int(step) < len(container):
        return container[int(step)]
    raise _unprocessable(f"missing path element {step!r}")


def _read(document: Any, pointer: list[str]) -> Any:
    for step in pointer:
        document = _step(document, step)
    return document


def _write(document: Any, pointer: list[str], value: Any, *, insert: bool) -> Any:
    if not pointer:
        return value
    container, last = _read(document, pointer[:-1]), pointer[-1]
    if isinstance(container, dict):
        container[last] = value
    # The place after the last entry: how a JSON patch appends.
    elif isinstance(container, list) and last == "-":
        container.append(value)
    elif isinstance(container, list) and last.isdigit() and int(last) <= len(container) - (not insert):
        # An insertion replaces the empty slice at that place, a replacement the one entry.
        container[int(last) : int(last) + (not insert)] = [value]
    else:
        raise _unprocessable(f"cannot write at {last!r}")
    return document


def _remove(document: Any, pointer: list[str]) -> Any:
    if not pointer:
        raise _unprocessable("the whole document cannot be removed")
    container, last = _read(document, pointer[:-1]), pointer[-1]
    _step(container, last)
    del container[int(last) if isinstance(container, list) else last]
    return document
