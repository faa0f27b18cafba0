SELECT t1."~param.lr.number" AS "low", t1."~param.LR.number~2" AS "high"
FROM "runs" AS t0 LEFT JOIN (SELECT run_id, any_value(number) FILTER (WHERE key = $p0) AS "~param.lr.number", any_value(number) FILTER (WHERE key = $p1) AS "~param.LR.number~2" FROM params WHERE key IN ($p0, $p1) GROUP BY run_id) AS t1 ON t1.run_id = t0."run_id"
