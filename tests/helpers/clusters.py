"""hosts.yaml for tests of the cluster."""

from __future__ import annotations

CARDS = """\
model: 72b
folder: /srv/Qwen2.5-VL-72B-Instruct
interface: enp1s0
hosts:
  - name: box1
    address: 10.0.0.1
    card: RTX 2080 Ti
    devices: [0, 1, 2, 3, 4, 5, 6, 7]
  - name: box2
    address: 10.0.0.2
    interface: eno2
    card: RTX 2080 Ti
    devices: [0, 1, 2, 3, 4, 5, 6, 7]
    engine: ssh://box2
"""

CPUS = """\
folder: /srv/tiny
variant: cpu-vllm0.32.0-sdpa
network: lab
interface: eth0
hosts:
  - {name: box1, address: 10.78.0.11}
  - {name: box2, address: 10.78.0.12}
"""
