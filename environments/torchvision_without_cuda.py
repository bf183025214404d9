"""Declares the two operators that a torchvision built for CUDA cannot bring along beside a torch
that is not.

Without them `import torchvision` fails, although its transforms need neither. A `.pth` file imports
this module at every start of the interpreter; nothing happens before somebody imports torchvision.
"""

import sys

_OPERATORS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept = []


class _BeforeTorchvision:
    """A finder that finds nothing."""

    def find_spec(self, name, path=None, target=None):
        if name == "torchvision":
            sys.meta_path.remove(self)
            import torch

            library = torch.library.Library("torchvision", "FRAGMENT")
            for operator in _OPERATORS:
                library.define(operator)
            _kept.append(library)  # what it declares lasts as long as it does


sys.meta_path.insert(0, _BeforeTorchvision())
