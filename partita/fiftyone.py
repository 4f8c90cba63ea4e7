"""A partition as a dataset that FiftyOne imports: its FiftyOneImageClassificationDataset. FiftyOne is not needed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any

from partita.file_names import FolderNames
from partita.folders import file_name, new_folder, place
from partita.members import Member, class_names
from storage.errors import UsageError


def write_fiftyone(members: Iterable[Member], to: Path, *, copy: bool = False) -> None:
    """Write `data/` with the images and `labels.json` with a classification of each.

    `labels.json` knows an image by its name without the suffix. A classification has the cluster's name as `label`
    (`partita.members.class_names`), `confidence` where there is one, and the attributes `cluster` (its number) and
    `item`.

    Raises:
        UsageError: the items are texts, and as `partita.folders.write_folders`.
        OSError: the folder can't be written.
    """
    names = FolderNames(by_stem=True)
    members = list(members)
    classes = class_names(members)
    labels: dict[str, dict[str, Any]] = {}
    with new_folder(to) as folder:
        (folder / "data").mkdir()
        for m in members:
            if m.item.text is not None:
                raise UsageError("--form fiftyone: FiftyOne shows images; export texts with --form imagefolder")
            name = names.free(file_name(m.item))
            place(m.item, folder / "data" / name, copy=copy)
            sure = {} if m.confidence is None else {"confidence": m.confidence}
            attributes = {"cluster": m.cluster, "item": m.item.name}
            labels[PurePosixPath(name).stem] = {"label": classes[m.cluster], **sure, "attributes": attributes}
        whole = json.dumps({"classes": list(classes.values()), "labels": labels}, ensure_ascii=False, indent=1)
        (folder / "labels.json").write_text(whole + "\n", encoding="utf-8", newline="")
