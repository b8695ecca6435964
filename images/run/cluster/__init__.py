"""Many machines as one server, through Ray and vLLM: hosts.yaml, what is rendered from it, how it is started."""
