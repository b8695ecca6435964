"""The demo page: chat with pictures and videos, in front of any server that speaks the OpenAI API.

`command` runs in the development environment: it asks the server, makes the page's own environment from dev/demo.lock
and starts the page there. `page` and `ask` need gradio, `pictures` Pillow, `video` av: those run in that environment
only. The rest needs the standard library.
"""
