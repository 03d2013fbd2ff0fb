"""serve: what llama-server lacks, put in front of it, at next to no cost.

`settings` what a person may choose; `exchange` one request and what became of it.
At the door: `door` (Host, Origin, CORS), `credentials` and `limits` (keys), `routes`.
Inside: `queue` (who waits), `affinity` (whose cache), `relay` (the bytes), `app` (HTTP).
Behind: `backends` (replicas), `watch` (alive, ready, moving?).
Told: `logs`, `metrics`, `window` (percentiles), `status`. `server` puts it together.
"""
