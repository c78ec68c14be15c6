-- Makes wrk send one POST, its arguments being the body (or @ and a file that holds it) and its content type, and print
-- its findings as one line of JSON; spans in microseconds.
function init(args)
   wrk.method = "POST"
   wrk.body = args[1]
   if args[1]:sub(1, 1) == "@" then
      local file = assert(io.open(args[1]:sub(2), "rb"))
      wrk.body = file:read("*a")
      file:close()
   end
   wrk.headers["Content-Type"] = args[2]
end

function done(summary, latency, requests)
   local errors = summary.errors
   io.write(string.format(
      '{"requests": %d, "duration": %d, "p50": %d, "p90": %d, "p99": %d, "errors": {"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
      summary.requests, summary.duration, latency:percentile(50), latency:percentile(90), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
