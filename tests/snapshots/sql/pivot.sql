SELECT t0."step" AS "step", avg(CASE WHEN (t0."metric" = $p0) THEN t0."value" ELSE NULL END) AS "acc", avg(CASE WHEN (t0."metric" = $p1) THEN t0."value" ELSE NULL END) AS "val/loss"
FROM "metrics" AS t0
GROUP BY t0."step"
