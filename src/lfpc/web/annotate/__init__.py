"""The page on which a person draws nested truth boxes: `lfpc annotate FOLDER`."""

from lfpc.web.annotate.app import annotation_app
from lfpc.web.annotate.session import AnnotationSession, open_session

__all__ = ["AnnotationSession", "annotation_app", "open_session"]
