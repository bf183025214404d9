"""The page on which a person draws nested truth boxes: `lfpc annotate FOLDER`."""

from lfpc.web.annotate.app import annotation_app
from lfpc.web.annotate.desk import Desk, open_desk

__all__ = ["Desk", "annotation_app", "open_desk"]
