"""Registries: manifests, blobs, tags, artifacts, signatures, by the OCI distribution specification.

The rule: what comes back has the digest that it was asked for by.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.registry import artifact as artifact
    from images.registry import client as client
    from images.registry import credentials as credentials
    from images.registry import ping as ping
    from images.registry import token as token
    from images.registry.address import parse_repository as parse_repository
    from images.registry.artifact import Artifact as Artifact
    from images.registry.artifact import ArtifactPart as ArtifactPart
    from images.registry.blob_stream import BlobStream as BlobStream
    from images.registry.client import Repository as Repository
    from images.registry.cosign import Cosign as Cosign
    from images.registry.cosign import Identity as Identity
    from images.registry.cosign import find_cosign as find_cosign
    from images.registry.descriptor import DIGEST as DIGEST
    from images.registry.descriptor import INDEX as INDEX
    from images.registry.descriptor import MANIFEST as MANIFEST
    from images.registry.descriptor import Blob as Blob
    from images.registry.descriptor import Manifest as Manifest
    from images.registry.descriptor import digest_of as digest_of
    from images.registry.descriptor import digest_of_file as digest_of_file
    from images.registry.oci_image import CONFIG as CONFIG
    from images.registry.oci_image import Packing as Packing
    from images.registry.oci_image import RemoteImage as RemoteImage
    from images.registry.oci_image import layer_type as layer_type
    from images.registry.oci_image import make_manifest as make_manifest
    from images.registry.oci_image import read_blob as read_blob
    from images.registry.oci_image import read_image as read_image
    from images.registry.ping import answer as answer
    from images.registry.platforms import FoundImage as FoundImage
    from images.registry.platforms import find_image as find_image
    from images.registry.retry import Retry as Retry
    from images.registry.retry import TransientError as TransientError
    from images.registry.transport import Transport as Transport
else:
    __getattr__ = face(__name__, __file__)
