"""pycocotools: the boxes of each picture in an exported file."""

import json
import sys

from pycocotools.coco import COCO

coco = COCO(sys.argv[1])
boxes = {
    image["file_name"]: [one["bbox"] for one in coco.loadAnns(coco.getAnnIds(imgIds=[number]))]
    for number, image in coco.imgs.items()
}
print(json.dumps({"boxes": boxes, "categories": [one["name"] for one in coco.cats.values()]}))
