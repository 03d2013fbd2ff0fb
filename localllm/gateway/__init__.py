"""serve: what llama-server lacks, put in front of it, at next to no cost.

`settings` what a person may choose; `exchange` one request and what became of it.
At the door: `listening`, `binding` (sockets), `door` (Host, Origin, CORS), `credentials` and
`limits` (keys), `routes`, `refusal` (what is answered instead), `openapi` (our own paths).
Inside: `app` (a request's way), `ask` (what is read of it), `queue` (who waits), `flights` (who
takes too long), `relay` and `passing` (the bytes, and what they tell).
Behind: `backends` and `affinity` (who answers), `replica` (a llama-server) and `child` (one life of
it), `motion` (whether it moves).
Told: `logs`, `metrics`, `window` (percentiles), `status`, `control` (asked from outside), `notify`.
`server` puts it together; `threads` (what blocks) and `heap` (memory) serve it.
"""
