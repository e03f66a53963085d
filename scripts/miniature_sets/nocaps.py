"""nocaps: `nocaps_val_4500_captions.json`, COCO's form with a `domain` an image and ten captions, and `val/`."""

from __future__ import annotations

from pathlib import Path

from scripts.miniature_sets._pictures import pictures, write_json

DOMAINS = ("in-domain", "near-domain", "near-domain", "out-domain")


def write(folder: Path) -> None:
    images, annotations = [], []
    for i, picture in enumerate(pictures("nocaps", 16)):
        name = f"{0x13EA2087020901 + 4097 * i:016x}"
        picture.save(folder / "val" / f"{name}.jpg")
        images.append(
            {"id": i, "open_images_id": name, "height": 48, "width": 48, "file_name": f"{name}.jpg", "license": 0,
             "coco_url": f"https://s3.amazonaws.com/nocaps/val/{name}.jpg", "domain": DOMAINS[i % len(DOMAINS)]}
        )  # fmt: skip
        ten = [*picture.captions, *(f"{text.rstrip('.')} on a dark ground." for text in picture.captions)]
        annotations += [{"id": 10 * i + k, "image_id": i, "caption": text} for k, text in enumerate(ten)]
    info = {"description": "nocaps validation dataset", "version": "0.1", "year": 2018}
    write_json(
        folder / "nocaps_val_4500_captions.json",
        {"licenses": [], "info": info, "images": images, "annotations": annotations},
    )
