// Means of log(1 + exp(v)) over each side of a row, included twice. They weigh a label with its weight times its reach: that is
// max(margin + v, 0), or 1 without a margin. The peak of a side is its largest reach; the sum is that of what labels weigh, and
// the dot that of log(1 + exp(v)), both relative to the peak. A second pass makes the gradient, once the means are known.

typedef struct {
  ALIGNED REAL reach[TILE + 16], share[TILE + 16];
} NAME(Reach);

// From v to log(1 + exp(v)), and its derivative, the share; the reach of each label.
CLONES static void NAME(stretch)(const Job *job, REAL *restrict value, long m, NAME(Reach) *restrict r) {
  const REAL margin = (REAL)job->constants[0];
  for (long i = 0; i < m; i++) {
    const REAL beyond = margin + value[i];
    r->reach[i] = SELECT(beyond < 0, 0, SELECT(beyond > MOST, MOST, beyond));
  }
  for (long i = 0; i < m && margin == INFINITY; i++) r->reach[i] = 1;
  NAME(soften)(value, r->share, m);
}

// Adds labels to a side.
CLONES static void NAME(fold_mean)(const REAL *restrict cost, const REAL *restrict reach, const REAL *restrict weight,
                                   long m, Side *side) {
  INTEGER highest = 0;
  REAL sum = 0;
  double dot = 0;
  for (long i = 0; i < m; i++) {
    const INTEGER x = NAME(bits)(-NEGATIVE_ABS(SELECT(weight[i] > 0, reach[i], 0))); // in the order of the numbers
    highest = x > highest ? x : highest;
  }
  const double top = NAME(real)(highest);
  if (top == 0) return;
  if (!(top <= side->peak)) {
    side->sum *= side->peak / top, side->dot *= side->peak / top;
    side->peak = top;
  }
  const REAL peak = (REAL)side->peak;
#pragma omp simd reduction(+ : sum, dot)
  for (long i = 0; i < m; i++) {
    const REAL weighs = SELECT(weight[i] > 0, weight[i] * (reach[i] / peak), 0);
    sum += weighs, dot += (double)weighs * (SELECT(weight[i] > 0, cost[i], 0) * (REAL)SCALED);
  }
  side->sum += sum, side->dot += dot;
}

// Writes what labels of a side have of the gradient.
CLONES static void NAME(descend_mean)(const Job *job, const Side *side, const REAL *restrict cost,
                                      const REAL *restrict reach, const REAL *restrict share,
                                      const REAL *restrict slope, const REAL *restrict weight, long m,
                                      REAL *restrict g) {
  const REAL peak = (REAL)side->peak, sum = (REAL)side->sum, scale = (REAL)job->scale;
  const double mean_cost = mean_of(side, side->sum);
  const REAL mean = mean_cost > MOST ? MOST : (REAL)mean_cost;
  const int moves = job->constants[0] < INFINITY; // does what a label weighs depend on its logit?
  if (sum == 0) {
    memset(g, 0, m * sizeof(REAL));
    return;
  }
  for (long i = 0; i < m; i++) {
    const REAL above = SELECT(cost[i] > MOST, MOST, cost[i]) - mean;
    const REAL rises = (reach[i] / peak) * share[i] + SELECT(moves & !(reach[i] == 0), above / peak, 0);
    g[i] = SELECT(weight[i] > 0, (weight[i] / sum) * rises * slope[i] * scale, 0);
  }
}

static double NAME(mean_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                             REAL *g) {
  Side sides[2] = {{0}, {0}};
  NAME(Reach) r;
  double value = 0;
  for (int pass = 0; pass < (g ? 2 : 1); pass++) {
    const long labels = !pass && job->joined_state ? 0 : job->labels;
    list->count = 0;
    for (long start = 0; start < labels; start += STEP) {
      const long m = labels - start < STEP ? labels - start : STEP;
      const REAL *z = NAME(begin)(job, row, start, m, t, list, pass ? g + start : 0);
      NAME(curves)[job->negative](z, NAME(ones), t->value, t->slope, m, s + 1);
      NAME(stretch)(job, t->value, m, &r);
      if (!pass) NAME(fold_mean)(t->value, r.reach, t->down, m, sides + 1);
      else NAME(descend_mean)(job, sides + 1, t->value, r.reach, r.share, t->slope, t->down, m, g + start);
    }
    for (long from = 0; from < list->count; from += TILE) {
      const long m = NAME(pad)(list, from), real = list->count - from < m ? list->count - from : m;
      NAME(curves)[job->positive](list->z + from, NAME(ones), t->value, t->slope, m, s);
      NAME(stretch)(job, t->value, real, &r);
      if (!pass) NAME(fold_mean)(t->value, r.reach, list->weight + from, real, sides);
      else NAME(descend_mean)(job, sides, t->value, r.reach, r.share, t->slope, list->weight + from, real, t->rise);
      for (long j = 0; j < real && pass; j++) g[list->index[from + j]] += t->rise[j];
    }
    if (!pass) {
      give_part(job, row, sides);
      for (int side = 0; side < 2; side++) take_joined(job, row, side, sides + side);
      value = finish(job, sides) * job->scale;
    }
  }
  list->count = 0;
  return value;
}

// Several short rows that lie side by side, as one tile.
static void NAME(mean_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s, NAME(Tile) *t,
                                  NAME(Positives) *list, REAL *values) {
  const long labels = job->labels, m = many * labels;
  long ends[TILE];
  NAME(Reach) up, down;
  REAL *gradient = NAME(gradient)(job, row, t->z); // the logits are not needed to the end
  const REAL *z = NAME(begin)(job, row, 0, m, t, list, gradient);
  NAME(curves)[job->negative](z, NAME(ones), t->value, t->slope, m, s + 1);
  NAME(curves)[job->positive](list->z, NAME(ones), t->up, t->rise, NAME(pad)(list, 0), s);
  NAME(stretch)(job, t->value, m, &down);
  NAME(stretch)(job, t->up, list->count, &up);
  NAME(find_ends)(job, many, list, ends);
  for (long r = 0, j = 0; r < many; j = ends[r++]) {
    const long at = r * labels, few = ends[r] - j;
    REAL *weight = list->weight + j;
    Side sides[2] = {{0}, {0}};
    NAME(fold_mean)(t->value + at, down.reach + at, t->down + at, labels, sides + 1);
    NAME(fold_mean)(t->up + j, up.reach + j, weight, few, sides);
    values[row + r] = (REAL)(finish(job, sides) * job->scale);
    if (!gradient) continue;
    NAME(descend_mean)(job, sides + 1, t->value + at, down.reach + at, down.share + at, t->slope + at, t->down + at,
                       labels, gradient + at);
    NAME(descend_mean)(job, sides, t->up + j, up.reach + j, up.share + j, t->rise + j, weight, few, list->z + j);
    for (long i = j; i < ends[r]; i++) gradient[list->index[i]] += list->z[i];
  }
  list->count = 0;
  if (job->row_weight) NAME(weigh_rows)(job, row, many, values + row, gradient, t);
  if (gradient) NAME(store)(job, row, m, gradient);
}
