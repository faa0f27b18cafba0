SELECT t0."run_id" AS "run_id", t0."metric" AS "metric", t0."step" AS "step", t0."ts" AS "ts", t0."value" AS "value"
FROM "metrics" AS t0
WHERE EXISTS (SELECT 1 FROM (SELECT t1."run_id" AS "run_id", t2."~metric.val/loss.arg_min" AS "step"
FROM "runs" AS t1 LEFT JOIN (SELECT run_id, arg_min_null(min_step, min) AS "~metric.val/loss.arg_min" FROM summaries WHERE metric IN ($p0) GROUP BY run_id) AS t2 ON t2.run_id = t1."run_id"
WHERE (NOT (t2."~metric.val/loss.arg_min" IS NULL))) AS t3 WHERE t0."run_id" = t3."run_id" AND t0."step" = t3."step")
ORDER BY t0."run_id" NULLS LAST, t0."metric" NULLS LAST
