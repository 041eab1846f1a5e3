// The same loss over the rows of each label, for pools that compare both ways; included twice. All that is said about the
// labels has become two weights by then, and these are turned together with the logits. So what is known and weighs nothing is not told from what is unknown: `counted` is not
// ROWS.

#define TURNED 16 // rows at a time: as many numbers side by side fill a line of the cache

// From `many` rows of labels to labels x rows.
CLONES static void NAME(turn)(const REAL *restrict from, long many, long labels, REAL *restrict to, long rows) {
  for (long i = 0; i < labels; i++)
    for (long r = 0; r < many; r++) to[i * rows + r] = from[r * labels + i];
}

// Logits and both weights of some rows, side by side in `buffer`, TURNED x labels each.
static void NAME(gather)(const Job *job, long row, long many, NAME(Tile) *t, NAME(Positives) *list, REAL *buffer) {
  for (long r = 0; r < many; r++)
    for (long start = 0; start < job->labels; start += STEP) {
      const long m = job->labels - start < STEP ? job->labels - start : STEP, apart = TURNED * job->labels;
      const REAL *z = NAME(load)(job, row + r, start, m, t->z);
      REAL *to = buffer + r * job->labels + start;
      NAME(weights)(job, row + r, start, m, t, list);
      list->count = 0;
      memcpy(to, z, m * sizeof(REAL));
      memcpy(to + apart, t->up, m * sizeof(REAL)), memcpy(to + 2 * apart, t->down, m * sizeof(REAL));
    }
}

// Logits and weights as labels x rows, one matrix behind the other. Returns whether there was memory.
static int NAME(turn_all)(const Job *job, REAL *turned) {
  const long size = job->rows * job->labels;
  const int threads = job->threads;
  int failed = 0;
#pragma omp parallel num_threads(threads) reduction(| : failed) if (threads > 1)
  {
    NAME(Tile) t;
    NAME(Positives) list;
    REAL *buffer = malloc(3 * TURNED * job->labels * sizeof(REAL));
    failed = !NAME(allocate)(job, &list) || !buffer;
    t.odd = t.unknown = 0;
#pragma omp for
    for (long row = 0; row < job->rows; row += TURNED) {
      const long many = job->rows - row < TURNED ? job->rows - row : TURNED;
      if (failed) continue;
      NAME(gather)(job, row, many, &t, &list, buffer);
      for (long k = 0; k < 3; k++)
        NAME(turn)(buffer + k * TURNED * job->labels, many, job->labels, turned + k * size + row, job->rows);
    }
    free(list.index), free(list.z), free(list.weight), free(buffer);
  }
  return !failed;
}

// Adds a gradient of labels x rows to that of the job. Returns whether there was memory.
static int NAME(add_turned)(const Job *job, const REAL *gradient) {
  Job before = *job;
  before.logits = job->gradient, before.logit_stride = job->labels;
  REAL *sums = malloc(job->labels * sizeof(REAL));
  for (long row = 0; row < job->rows && sums; row++) {
    REAL *to = NAME(gradient)(job, row, sums);
    for (long start = 0; start < job->labels; start += STEP) {
      const long m = job->labels - start < STEP ? job->labels - start : STEP;
      const REAL *g = NAME(load)(&before, row, start, m, sums + start);
      for (long i = start; i < start + m; i++) to[i] = g[i - start] + gradient[i * job->rows + row];
    }
    NAME(store)(job, row, job->labels, to);
  }
  free(sums);
  return sums != 0;
}

static void NAME(run_both_ways)(Job *job) {
  const long size = job->rows * job->labels;
  REAL total = 0, *turned = malloc(4 * size * sizeof(REAL));
  Job columns = *job;
  NAME(run)(job);
  job->failed |= !turned || !NAME(turn_all)(job, turned);
  columns.rows = job->labels, columns.labels = columns.logit_stride = columns.target_stride = job->rows;
  columns.logits = turned, columns.targets = turned + size, columns.total = &total;
  columns.logit_type = sizeof(REAL) == 8 ? F64 : F32, columns.target_type = WEIGHTS;
  columns.gradient = job->gradient ? turned + 3 * size : 0;
  columns.mask = 0, columns.weight = columns.pos_weight = 0, columns.smoothing = 0, columns.ignoring = 0;
  if (!job->failed) NAME(run)(&columns);
  job->failed |= columns.failed;
  *(REAL *)job->total += total;
  if (!job->failed && job->gradient) job->failed = !NAME(add_turned)(job, columns.gradient);
  free(turned);
}
