-- title: Sweep as a grid
-- description: Two params against the best value of a metric: a row for each value of the one, and in it the best over
--   all runs for each value of the other. Runs without both params, or whose experiment declares no direction for the
--   metric, do not count; NaN is never the best.
-- parameter metric text required: the metric, such as val/loss
-- parameter rows text required: the param whose values are the rows, such as optim.lr
-- parameter columns text required: the param whose values are the columns
-- parameter experiment text = null: only this experiment and those below it; null for all
-- column row_value: the value of the first param
-- column direction: min or max, as declared
-- column runs: runs with it
-- column best: the best value of all these
-- column best_column: the value of the other param there
-- column cells: for each value of the other param the best value
WITH cells AS (
    SELECT coalesce(one.value, 'null') AS row_value, any_value(one.number) AS row_number, direction,
        coalesce(other.value, 'null') AS column_value, any_value(other.number) AS column_number, count(*) AS runs,
        CASE direction WHEN 'min' THEN min(min) WHEN 'max' THEN max(max) END AS best
    FROM summaries JOIN definitions USING (experiment, metric)
        JOIN params one ON one.run_id = summaries.run_id AND one.key = $rows
        JOIN params other ON other.run_id = summaries.run_id AND other.key = $columns
    WHERE metric = $metric AND direction IS NOT NULL
        AND ($experiment::VARCHAR IS NULL OR in_subtree(experiment, $experiment))
    GROUP BY row_value, direction, column_value
)
SELECT row_value, direction, sum(runs)::BIGINT AS runs,
    CASE direction WHEN 'min' THEN min(cells.best) WHEN 'max' THEN max(cells.best) END AS best,
    arg_min(column_value, (CASE direction WHEN 'min' THEN cells.best ELSE -cells.best END, column_value))
        FILTER (cells.best IS NOT NULL) AS best_column,
    map(
        list(column_value ORDER BY column_number, column_value),
        list(cells.best ORDER BY column_number, column_value)
    ) AS cells
FROM cells GROUP BY row_value, direction ORDER BY direction, any_value(row_number), row_value
