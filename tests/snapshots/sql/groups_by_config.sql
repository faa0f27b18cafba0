SELECT t1."~param.lr.number" AS "params.lr", count(*) AS "count"
FROM "runs" AS t0 LEFT JOIN (SELECT run_id, any_value(number) AS "~param.lr.number" FROM params WHERE key IN ($p0) GROUP BY run_id) AS t1 ON t1.run_id = t0."run_id"
GROUP BY t1."~param.lr.number"
