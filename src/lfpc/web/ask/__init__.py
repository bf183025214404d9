"""The demo page and the endpoint of `lfpc serve`, about one model.

app              the application
page             routes of the page
page_requests    the page's requests, checked
asked            questions of the page, and events about their episodes
completions      routes of the endpoint
chat_request     the endpoint's requests, checked
uploads          pictures from outside
store            files kept for a while
keys             the key of a public server
"""
