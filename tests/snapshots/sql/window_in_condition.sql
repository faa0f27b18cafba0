SELECT t1."experiment" AS "experiment", t1."run_id" AS "run_id", t1."metric" AS "metric", t1."step" AS "step", t1."ts" AS "ts", t1."value" AS "value", t1."attempt" AS "attempt"
FROM (SELECT t0."experiment" AS "experiment", t0."run_id" AS "run_id", t0."metric" AS "metric", t0."step" AS "step", t0."ts" AS "ts", t0."value" AS "value", t0."attempt" AS "attempt", row_number() OVER (PARTITION BY t0."run_id" ORDER BY t0."value" DESC NULLS LAST, t0."metric" NULLS LAST, t0."step" NULLS LAST) AS "~window0"
FROM "metrics" AS t0) AS t1
WHERE (t1."~window0" = $p0)
