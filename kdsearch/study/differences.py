"""What differs between two versions of a study."""

from __future__ import annotations

from kdsearch.study.schema import Study


def differences(old: Study, new: Study) -> list[str]:
    """What differs between two studies, as lines `path: old → new`.

    What a training takes of the cluster and what stays on disk may change: no result depends on it.
    """

    def leaves(value: object, path: str) -> dict[str, object]:
        if isinstance(value, dict):
            parts = ((f"{path}.{key}" if path else key, inner) for key, inner in value.items())
        elif isinstance(value, list) and value:
            parts = ((f"{path}[{index}]", inner) for index, inner in enumerate(value))
        else:
            return {path: value}
        return {k: v for name, inner in parts for k, v in leaves(inner, name).items()}

    before, after = (
        leaves(study.model_dump(mode="json", exclude={"resources", "keep_students"}), "")
        for study in (old, new)
    )
    return [
        f"{path}: {before.get(path, 'absent')} → {after.get(path, 'absent')}"
        for path in dict.fromkeys((*before, *after))
        if before.get(path, "absent") != after.get(path, "absent")
    ]
