"""The engine room: the only one that knows llama.cpp.

build.py makes it, locate.py finds it, inquiry.py asks what it is, fit.py lets it say what memory
a run takes, argv.py words a Plan in its terms, guardian.py and server.py keep it running as a
child, client.py talks to it, inprocess.py does without llama-server.
"""
