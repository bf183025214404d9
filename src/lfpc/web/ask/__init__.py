"""The demo page and the endpoint of `lfpc serve`, about one model.

`page` and `completions` are the routes, `requests` and `chat_request` what they are sent, `asked`
what the page is told while a question is answered; pictures that come in are in `uploads`, what
pages may still ask for on a `store`.
"""
