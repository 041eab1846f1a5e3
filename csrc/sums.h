// What all row loops share, and that of the sum, one pass over the row; included twice. They know pools, and no curve.

static ALIGNED const REAL NAME(ones)[TILE] = {ONES};

// Does the gradient have another type than REAL, so that it is made in a buffer and stored from there?
INLINE int NAME(converts)(const Job *job) { return job->logit_type != (sizeof(REAL) == 8 ? F64 : F32); }

INLINE REAL *NAME(gradient)(const Job *job, long row, REAL *buffer) {
  if (!job->gradient) return 0;
  return NAME(converts)(job) ? buffer : (REAL *)job->gradient + row * job->labels;
}

INLINE void NAME(store)(const Job *job, long row, long m, const REAL *restrict g) {
#ifdef SINGLE
  uint16_t *out = (uint16_t *)job->gradient + row * job->labels;
  if (job->logit_type == BF16) store_bf16(g, out, m);
  else if (job->logit_type == F16) store_f16(g, out, m);
#endif
}

// Multiplies values and gradients of some rows, from `row` on, with the weights of these.
static void NAME(weigh_rows)(const Job *job, long row, long many, REAL *values, REAL *g, NAME(Tile) *t) {
  for (long r = 0; r < many; r++) {
    const REAL weight = ((const REAL *)job->row_weight)[row + r];
    t->odd |= !(weight >= 0 && weight < INFINITY);
    values[r] *= weight;
    for (long i = r * job->labels; i < (r + 1) * job->labels && g; i++) g[i] *= weight;
  }
}

// What the listed positives cost in sum. Adds their gradient to g, and their cost to `cost`, where these are given.
static REAL NAME(add_positives)(const Job *job, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list, REAL *g,
                                REAL *cost) {
  REAL sum = 0;
  for (long from = 0; from < list->count; from += TILE) {
    const long m = NAME(pad)(list, from), real = list->count - from < m ? list->count - from : m;
    sum += NAME(curves)[job->positive](list->z + from, list->weight + from, t->up, t->down, m, s);
    for (long j = 0; j < real && g; j++) g[list->index[from + j]] += t->down[j];
    for (long j = 0; j < real && cost; j++) cost[list->index[from + j]] += t->up[j];
  }
  list->count = 0;
  return sum;
}

static double NAME(sum_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                            REAL *g) {
  double sum = 0;
  for (long start = 0; start < job->labels; start += STEP) {
    const long m = job->labels - start < STEP ? job->labels - start : STEP;
    const REAL *z = NAME(begin)(job, row, start, m, t, list, g ? g + start : 0);
    sum += NAME(curves)[job->negative](z, t->down, t->value, g ? g + start : t->slope, m, s + 1);
  }
  return sum + NAME(add_positives)(job, s, t, list, g, 0);
}

// Several short rows that lie side by side, as one tile; what a label costs goes to t->value.
CLONES static void NAME(sum_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s, NAME(Tile) *t,
                                        NAME(Positives) *list, REAL *values) {
  const long m = many * job->labels;
  REAL *gradient = NAME(gradient)(job, row, t->slope), *g = gradient ? gradient : t->slope;
  const REAL *z = NAME(begin)(job, row, 0, m, t, list, gradient);
  REAL all = NAME(curves)[job->negative](z, t->down, t->value, g, m, s + 1);
  const int single = job->value || job->row_weight;
  all += NAME(add_positives)(job, s, t, list, g, single ? t->value : 0);
  if (!single) values[row] = all; // for their total
  for (long r = 0; r < many && single; r++) {
    REAL sum = 0;
#pragma omp simd reduction(+ : sum)
    for (long i = r * job->labels; i < (r + 1) * job->labels; i++) sum += t->value[i];
    values[row + r] = sum;
  }
  if (job->row_weight) NAME(weigh_rows)(job, row, many, values + row, gradient, t);
  if (gradient) NAME(store)(job, row, m, g);
}
