"""Docker: the engine found, asked and told; BuildKit; containers and what they are started with.

The rule: the one room with a client of docker-py or testcontainers, and it knows no product: no model, no server, no
catalogue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.docker import base_image as base_image
    from images.docker import bootstrap as bootstrap
    from images.docker import build_inputs as build_inputs
    from images.docker import engine as engine
    from images.docker import temporary_containers as temporary_containers
    from images.docker.base_image import ca_bundle as ca_bundle
    from images.docker.base_image import local_reference as local_reference
    from images.docker.builders import Builder as Builder
    from images.docker.builders import carried as carried
    from images.docker.builders import explained as explained
    from images.docker.builders import find_builder as find_builder
    from images.docker.builders import pushed_digests as pushed_digests
    from images.docker.buildx import LOGS as LOGS
    from images.docker.buildx import run_bake as run_bake
    from images.docker.card_errors import no_card_given as no_card_given
    from images.docker.connection import connect as connect
    from images.docker.connection import reach as reach
    from images.docker.connection import require_engine as require_engine
    from images.docker.container_pod import CARDS as CARDS
    from images.docker.container_pod import as_label as as_label
    from images.docker.container_pod import check_label as check_label
    from images.docker.container_pod import pod_container as pod_container
    from images.docker.container_pod import pod_security as pod_security
    from images.docker.container_pod import pod_shut as pod_shut
    from images.docker.container_pod import pod_volumes as pod_volumes
    from images.docker.container_spec import ALL_CARDS as ALL_CARDS
    from images.docker.container_spec import NO_CARDS as NO_CARDS
    from images.docker.container_spec import RESTART as RESTART
    from images.docker.container_spec import STOP_TIMEOUT as STOP_TIMEOUT
    from images.docker.container_spec import TMPFS as TMPFS
    from images.docker.container_spec import ContainerSpec as ContainerSpec
    from images.docker.container_spec import Gpus as Gpus
    from images.docker.container_spec import Mount as Mount
    from images.docker.container_spec import PublishedPort as PublishedPort
    from images.docker.container_spec import check_name as check_name
    from images.docker.container_spec import check_port as check_port
    from images.docker.container_spec import is_device as is_device
    from images.docker.container_spec import read_gpus as read_gpus
    from images.docker.container_spec import read_memory as read_memory
    from images.docker.container_text import compose as compose
    from images.docker.container_text import docker_line as docker_line
    from images.docker.container_text import docker_words as docker_words
    from images.docker.containers import Containers as Containers
    from images.docker.containers import ContainerState as ContainerState
    from images.docker.engine import Engine as Engine
    from images.docker.facts import HostFacts as HostFacts
    from images.docker.facts import ImageFacts as ImageFacts
    from images.docker.gpu_access import NO_TOOLS as NO_TOOLS
    from images.docker.gpu_access import GpuTools as GpuTools
    from images.docker.gpu_access import Way as Way
    from images.docker.gpu_access import by_way as by_way
    from images.docker.gpu_access import cdi_devices as cdi_devices
    from images.docker.gpu_access import cdi_folders as cdi_folders
    from images.docker.gpu_access import gpu_tools as gpu_tools
    from images.docker.gpu_access import spec_by_way as spec_by_way
    from images.docker.gpu_access import way_to_cards as way_to_cards
    from images.docker.owners import RUN_LABEL as RUN_LABEL
    from images.docker.owners import run_labels as run_labels
    from images.docker.refusals import DiskFull as DiskFull
    from images.docker.refusals import RateLimited as RateLimited
    from images.docker.refusals import refuse_old_engine as refuse_old_engine
    from images.docker.ssh import ssh_address as ssh_address
    from images.docker.temporary_containers import TemporaryContainer as TemporaryContainer
    from images.docker.temporary_containers import TemporaryContainers as TemporaryContainers
    from images.docker.whose_machine import is_local as is_local
else:
    __getattr__ = face(__name__, __file__)
