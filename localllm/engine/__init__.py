"""The engine room: the only one that knows llama.cpp.

To get one: build.py and its neighbours (toolchain, recipe, workshop, wheelcache, installed).
To know it: locate.py finds it, ask.py asks what it is, dryrun.py what a run would take.
To run it: argv.py words a Plan in its terms, server.py and guardian.py keep it as a child,
client.py talks to it, inprocess.py does without llama-server; run.py is the door to all of that.
"""
