SELECT t0."name" AS "name"
FROM "runs" AS t0 LEFT JOIN (SELECT run_id, CAST(any_value(number) AS BIGINT) AS "~param.seed.int" FROM params WHERE key IN ($p0) GROUP BY run_id) AS t1 ON t1.run_id = t0."run_id" LEFT JOIN (SELECT run_id, min(min) AS "~metric.val/loss.min" FROM summaries WHERE metric IN ($p1) GROUP BY run_id) AS t2 ON t2.run_id = t0."run_id"
WHERE ((t1."~param.seed.int" = $p2) OR (NOT (t2."~metric.val/loss.min" > $p3)))
