"""One model on several machines, through Ray and vLLM.

The rule: pure but for `containers` and `run`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from images.core.lazy_import import face

if TYPE_CHECKING:
    from images.run.cluster.compose import compose_file as compose_file
    from images.run.cluster.containers import ClusterContainers as ClusterContainers
    from images.run.cluster.host_cards import check_cards as check_cards
    from images.run.cluster.hosts import Host as Host
    from images.run.cluster.hosts import Hosts as Hosts
    from images.run.cluster.hosts import parse_hosts as parse_hosts
    from images.run.cluster.kuberay import kuberay_manifest as kuberay_manifest
    from images.run.cluster.nodes import OWN_TOKEN as OWN_TOKEN
    from images.run.cluster.nodes import TOKEN as TOKEN
    from images.run.cluster.nodes import ClusterPlan as ClusterPlan
    from images.run.cluster.nodes import Node as Node
    from images.run.cluster.nodes import fitted as fitted
    from images.run.cluster.nodes import make_nodes as make_nodes
    from images.run.cluster.nodes import on_cpus as on_cpus
    from images.run.cluster.run import Cluster as Cluster
    from images.run.cluster.run import engines_of as engines_of
else:
    __getattr__ = face(__name__, __file__)
