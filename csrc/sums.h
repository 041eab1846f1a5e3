// What all row loops share, and that of the sum, one pass over the row, which that with a none class takes as well; included
// twice. They know pools, and no curve.

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

// Adds labels to their row, which has a none class: their number and the sum of their logits.
CLONES static void NAME(fold_known)(const REAL *restrict z, const REAL *restrict up, const REAL *restrict down, long m,
                                    Side *side) {
  REAL sum = 0, many = 0;
#pragma omp simd reduction(+ : sum, many)
  for (long i = 0; i < m; i++) {
    const int known = (up[i] > 0) | (down[i] > 0);
    sum += SELECT(known, z[i] * (REAL)SCALED, 0), many += SELECT(known, 1, 0);
  }
  side->dot += sum, side->mass += many;
}

// The same of m labels from `at` on in a tile that begins at `start`; and the largest y, which is the peak of the positives,
// of which those before `j` are done. Returns up to where they are then.
static long NAME(fold_none)(const REAL *z, const NAME(Tile) *t, const NAME(Positives) *list, long j, long start,
                            long at, long m, Side *sides) {
  NAME(fold_known)(z + at, t->up + at, t->down + at, m, sides + 1);
  for (; j < list->count && list->index[j] < start + at + m; j++) {
    const double up = list->weight[j], y = up / (up + t->down[list->index[j] - start]);
    if (y > sides->peak) sides->peak = y;
  }
  return j;
}

// The none class of each of `many` rows is one label more: its logit is less the mean of theirs, and it is there to the share
// that the largest y leaves. Writes what it costs, and the derivative of that by each logit of the row.
static void NAME(judge_none)(const Job *job, const NAME(Settings) *s, long many, Side (*sides)[2], REAL *cost,
                             REAL *share) {
  NAME(Tile) t;
  for (long r = 0; r < many; r++) {
    const Side *labels = sides[r] + 1;
    const double scale = labels->mass == 0 ? 0 : job->scale;
    t.z[r] = (REAL)-mean_of(labels, labels->mass);
    t.up[r] = (REAL)((1 - sides[r]->peak) * scale), t.down[r] = (REAL)(sides[r]->peak * scale);
  }
  NAME(curves)[job->negative](t.z, t.down, cost, share, many, s + 1);
  NAME(curves)[job->positive](t.z, t.up, t.value, t.slope, many, s);
  for (long r = 0; r < many; r++) {
    const double mass = sides[r][1].mass;
    cost[r] += t.value[r], share[r] = mass == 0 ? 0 : (REAL)(-(share[r] + t.slope[r]) / mass);
  }
}

// Adds a number to the gradient of known labels.
CLONES static void NAME(add_to_known)(const REAL *restrict up, const REAL *restrict down, REAL number, long m,
                                      REAL *restrict g) {
  for (long i = 0; i < m; i++) g[i] += SELECT((up[i] > 0) | (down[i] > 0), number, 0);
}

// `share` is of the none class.
static double NAME(sum_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                            REAL *g, REAL share) {
  double sum = 0;
  for (long start = 0; start < job->labels; start += STEP) {
    const long m = job->labels - start < STEP ? job->labels - start : STEP;
    const REAL *z = NAME(begin)(job, row, start, m, t, list, g ? g + start : 0);
    sum += NAME(curves)[job->negative](z, t->down, t->value, g ? g + start : t->slope, m, s + 1);
    if (g && share != 0) NAME(add_to_known)(t->up, t->down, share, m, g + start);
  }
  return sum + NAME(add_positives)(job, s, t, list, g, 0);
}

static double NAME(none_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                             REAL *g) {
  Side sides[1][2] = {{{0}, {0}}}, *labels = sides[0];
  REAL cost, share;
  for (long start = 0, j = 0; start < job->labels && !job->joined_state; start += STEP) {
    const long m = job->labels - start < STEP ? job->labels - start : STEP;
    const REAL *z = NAME(begin)(job, row, start, m, t, list, 0);
    j = NAME(fold_none)(z, t, list, j, start, 0, m, labels);
  }
  list->count = 0;
  for (int side = 0; side < 2; side++) take_joined(job, row, side, labels + side);
  NAME(judge_none)(job, s, 1, sides, &cost, &share);
  const double sum = NAME(sum_row)(job, row, s, t, list, g, share);
  if (job->joined_state) return labels->dot * job->scale + cost;
  labels->dot = sum; // of a part the scale is 1
  give_part(job, row, labels);
  return sum + cost;
}

// What the none classes of several short rows cost; their shares go to t->rise.
static void NAME(short_none)(const Job *job, long many, const NAME(Settings) *s, const REAL *z, NAME(Tile) *t,
                             const NAME(Positives) *list, REAL *cost) {
  const long labels = job->labels;
  Side sides[TILE][2];
  REAL share[TILE];
  memset(sides, 0, many * sizeof *sides), memset(t->rise, 0, many * labels * sizeof(REAL));
  for (long r = 0, j = 0; r < many; r++) j = NAME(fold_none)(z, t, list, j, 0, r * labels, labels, sides[r]);
  NAME(judge_none)(job, s, many, sides, cost, share);
  for (long at = 0, r = 0; r < many; r++, at += labels)
    NAME(add_to_known)(t->up + at, t->down + at, share[r], labels, t->rise + at);
}

// Several short rows that lie side by side, as one tile; what a label costs goes to t->value.
CLONES static void NAME(sum_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s, NAME(Tile) *t,
                                        NAME(Positives) *list, REAL *values) {
  const long m = many * job->labels;
  REAL *gradient = NAME(gradient)(job, row, t->slope), *g = gradient ? gradient : t->slope;
  const REAL *z = NAME(begin)(job, row, 0, m, t, list, gradient);
  const int none = job->pool == NONE_CLASS, single = none || job->value || job->row_weight;
  if (none) NAME(short_none)(job, many, s, z, t, list, values + row);
  REAL all = NAME(curves)[job->negative](z, t->down, t->value, g, m, s + 1);
  all += NAME(add_positives)(job, s, t, list, g, single ? t->value : 0);
  if (!single) values[row] = all; // for their total
  for (long r = 0; r < many && single; r++) {
    REAL sum = none ? values[row + r] : 0;
#pragma omp simd reduction(+ : sum)
    for (long i = r * job->labels; i < (r + 1) * job->labels; i++) sum += t->value[i];
    values[row + r] = sum;
  }
  for (long i = 0; i < m && none; i++) g[i] += t->rise[i];
  if (job->row_weight) NAME(weigh_rows)(job, row, many, values + row, gradient, t);
  if (gradient) NAME(store)(job, row, m, g);
}
