"""One restoration run: config, method, the flow (the only ray.data), preview, telemetry, report."""
