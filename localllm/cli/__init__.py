"""The only room that talks to a person: app.py, one file per command group, render.py."""
