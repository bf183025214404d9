"""Pages that a person works on in a browser, served on this machine to this machine.

Needs the extra `web` (starlette and uvicorn). Everything that data sets and models wrote is text to a page: the server sends
it as JSON, and scripts set it with `textContent`.
"""
