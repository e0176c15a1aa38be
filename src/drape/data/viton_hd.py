"""Reader for VITON-HD and HR-VITON folders, and for mannequin folders.  [Choi et al. 2021; Lee et al. 2022]

Both generations of folder names are read.  Every file is opened only when a field that was asked for
needs it, so a missing pose matters only to who asks for the pose.  The second column of
`train_pairs.txt` names *other people's* cloths: "paired" never looks at it.
"""

import json
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Literal

from jaxtyping import Bool
from numpy import ndarray

from drape.data.agnostic import agnostic_mask, agnostic_mask_paper, mask_of_gray
from drape.data.crop import Fit
from drape.data.files import Folders, read_pairs
from drape.data.images import read_mask, read_rgb
from drape.data.reader import DEFAULT_FIELDS, Files, FolderReader, PoseSource, Setting, check_size
from drape.data.sample import ClothKind
from drape.data.transforms import Size
from drape.errors import ConfigError, DataError

AGNOSTICS = {"v3.2": agnostic_mask, "paper": agnostic_mask_paper}
LICENCE = "CC BY-NC 4.0"

FOLDERS = {
    "person": ("image/{}.jpg", "image/{}.png"),
    "counterfactual": ("counterfactual/{}.jpg", "counterfactual/{}.png"),
    "cloth": ("cloth/{}.jpg", "cloth/{}.png"),
    "cloth_mask": ("cloth-mask/{}.jpg", "cloth-mask/{}.png"),
    "worn_cloth": ("cloth-worn/{}.jpg", "cloth-worn/{}.png"),
    "worn_cloth_mask": ("cloth-worn-mask/{}.jpg", "cloth-worn-mask/{}.png"),
    "worn_joints": ("openpose_json-worn/{}_keypoints.json",),
    "parse": ("image-parse-v3/{}.png", "image-parse/{}.png"),
    "joints": ("openpose_json/{}_keypoints.json", "openpose-json/{}_keypoints.json"),
    "shipped_mask": ("agnostic-mask/{}_mask.png", "agnostic-mask/{}.png"),
    "shipped_agnostic": ("agnostic-v3.2/{}.jpg", "agnostic-v3.2/{}.png"),
    "densepose": ("image-densepose/{}.jpg", "image-densepose/{}.png"),
    "warp": ("warp/{}.npz",),
    "counterfactual_warp": ("warp-counterfactual/{}.npz",),
}
"""Where each thing lies below the folder of the split, the preferred place first."""


class VitonHD(FolderReader):
    """Records of one split of a VITON-HD, HR-VITON or mannequin folder.

    size, cloth_size  (height, width) of what comes out
    fit               "whole" shows the files as they are, so the sizes must keep their aspect ratio; "square" cuts
                      people to squares around the upper body and pads flat clothes  [drape.data.crop]
    fields            what to read; everything else of a record is None
    pose              "null" gives the null pose without opening a file
    agnostic          "v3.2" is HR-VITON's mask and whatever it leaves of the cloth; "paper" the whole person's box
    mask              "computed" makes the agnostic mask from parse and joints, the same way everywhere;
                      "shipped" reads `agnostic-mask`, or finds the gray of `agnostic-v3.2` where that is missing
    setting           "counterfactual" is the exact answer to "unpaired": the person as they look in the
                      other cloth, everything else from before the change (mannequin folders only)
    skip              pairs that nobody will read: their files may be missing
    Raises DataError for folders and pairs that cannot be read, ConfigError for arguments that cannot work.
    """

    settings_names = (
        "split",
        "setting",
        "cloth_kind",
        "size",
        "cloth_size",
        "fit",
        "fields",
        "pose",
        "agnostic",
        "mask",
    )

    def __init__(
        self,
        root: str | Path,
        *,
        split: str = "train",
        setting: Setting = "paired",
        size: Size = (1024, 768),
        cloth_size: Size | None = None,
        fit: Fit = "whole",
        fields: Sequence[str] = DEFAULT_FIELDS,
        pose: PoseSource = "read",
        agnostic: Literal["v3.2", "paper"] = "v3.2",
        mask: Literal["computed", "shipped"] = "computed",
        cloth_kind: ClothKind = "flat",
        skip: Container[tuple[str, str]] = (),
    ) -> None:
        self.root = Path(root)
        self.split, self.setting, self.cloth_kind = split, setting, cloth_kind
        self.size, self.cloth_size = size, cloth_size or size
        self.fit: Fit = fit
        self.fields = tuple(fields)
        self.pose, self.agnostic, self.mask = pose, agnostic, mask
        self._check_arguments()
        self.folders = Folders(self.root, split, FOLDERS)
        self._skip = skip
        self.ids = self._read_ids()
        self.source, self.licence = _provenance(self.root)

    def hidden(self, files: Files) -> Bool[ndarray, "h w"]:
        """The agnostic mask at the size of the person's file, from the source that was asked for."""
        if self.mask == "computed":
            return AGNOSTICS[self.agnostic](files.full_parse, files.full_joints)
        path = self.folders.find("shipped_mask", files.person_id)
        if path is not None:
            return check_size(path, read_mask(path), files.person_size, "person")
        path = files.person_path("shipped_agnostic")
        return mask_of_gray(check_size(path, read_rgb(path), files.person_size, "person"))

    def _check_arguments(self) -> None:
        self.check_choices(
            setting=("paired", "unpaired", "counterfactual"),
            pose=("read", "null"),
            agnostic=tuple(AGNOSTICS),
            mask=("computed", "shipped"),
            cloth_kind=("flat", "worn"),
        )
        if "warp" in self.fields and (self.setting == "unpaired" or self.cloth_kind != "flat"):
            raise ConfigError(
                "warp maps a person to the flat cloth they wear in the image. "
                "Ask for setting='paired' or 'counterfactual' and cloth_kind='flat'."
            )
        if self.mask == "shipped" and self.agnostic != "v3.2":
            raise ConfigError("the shipped masks are v3.2. Ask for mask='computed' to get the paper's.")

    def _read_ids(self) -> list[tuple[str, str]]:
        pairs_file = self.root / f"{self.split}_pairs.txt"
        unpaired_file = self.root / f"{self.split}_unpaired_pairs.txt"
        if self.setting != "paired" and unpaired_file.is_file():
            pairs_file = unpaired_file
        pairs = read_pairs(pairs_file)
        if self.setting == "paired":
            ids = list(dict.fromkeys((person, person) for person, _ in pairs))
        else:
            ids = list(dict.fromkeys(pairs))
            if all(person == cloth for person, cloth in ids):
                raise DataError(
                    f"{pairs_file} pairs everybody with their own cloth, so there is no {self.setting} setting. "
                    f"Write {unpaired_file.name} with other cloths in its second column."
                )
        needed = [pair for pair in ids if pair not in self._skip]
        self.folders.check_named(pairs_file, "person", [person for person, _ in needed])
        if self.setting == "counterfactual":
            self.folders.check_named(pairs_file, "counterfactual", [person for person, _ in needed])
        if {"cloth", "cloth_mask"} & set(self.fields):
            kind = "cloth" if self.cloth_kind == "flat" else "worn_cloth"
            self.folders.check_named(pairs_file, kind, [cloth for _, cloth in needed])
        return ids


def _provenance(root: Path) -> tuple[str, str]:
    """(source, licence): of `dataset.json` where there is one, else VITON-HD's."""
    path = root / "dataset.json"
    if not path.is_file():
        return "viton-hd", LICENCE
    try:
        words = json.loads(path.read_text(encoding="utf-8"))
        return str(words.get("source", words.get("name", root.name))), str(words["licence"])
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise DataError(
            f"{path} is not a JSON object with a 'licence'. Restore it, or delete it if the data are VITON-HD's."
        ) from error
