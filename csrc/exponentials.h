// Pools of exponentials: a pass over the row for the state, and one over what it left behind for the gradient; included twice.

// Adds logits to one side of a row: e = weight exp(value - peak), and share = e slope. Returns what older shares must be
// multiplied with, since the peak has risen.
CLONES static double NAME(add)(const REAL *restrict value, const REAL *restrict slope, const REAL *restrict weight,
                               long m, REAL *restrict share, Side *side) {
  INTEGER highest = NAME(sortable)(-LARGE);
  for (long i = 0; i < m; i++) {
    INTEGER x = NAME(sortable)(SELECT(weight[i] > 0, value[i], -LARGE));
    highest = x > highest ? x : highest;
  }
  REAL top = NAME(unsortable)(highest), sum = 0, mass = 0;
  double older = 1;
  if (!(top <= side->peak)) {
    older = side->sum == 0 ? 0 : exp(side->peak - top);
    side->sum *= older;
    side->peak = top;
  }
  top = (REAL)side->peak;
#pragma omp simd reduction(+ : sum, mass)
  for (long i = 0; i < m; i++) {
    const REAL e = SELECT(weight[i] > 0, weight[i] * EXP(value[i] - top), 0);
    sum += e, mass += weight[i], share[i] = SELECT(weight[i] > 0, e * slope[i], 0);
  }
  side->sum += sum, side->mass += mass;
  return older;
}

CLONES static void NAME(multiply)(REAL *restrict g, REAL factor, long m) {
  if (factor == 0) memset(g, 0, m * sizeof(REAL)); // also what is NaN, in a row that has no part in the loss
  for (long i = 0; i < m; i++) g[i] = SELECT(g[i] == 0, 0, g[i] * factor); // 0 where unknown, whatever the row
}

// Puts the largest numbers in the place of infinities, of which a difference is 0.
CLONES static void NAME(confine)(REAL *restrict x, long m) {
  for (long i = 0; i < m; i++) x[i] = SELECT(x[i] > MOST, MOST, SELECT(x[i] < -MOST, -MOST, x[i]));
}

// Threshold softmax: its positives are folded with the opposite sign.
CLONES static void NAME(oppose)(REAL *restrict value, REAL *restrict slope, long m) {
  for (long i = 0; i < m; i++) value[i] = -value[i], slope[i] = -slope[i];
  NAME(confine)(value, m);
}

// From v to log(1 + exp(v)), and the derivative of that.
CLONES static void NAME(soften)(REAL *restrict value, REAL *restrict share, long m) {
  for (long i = 0; i < m; i++) share[i] = EXP(NEGATIVE_ABS(value[i]));
  for (long i = 0; i < m; i++) {
    const REAL e = share[i], v = value[i];
    value[i] = LOG1P_UNIT(e) + SELECT(v >= 0, v, 0), share[i] = SELECT(v >= 0, 1, e) * RECIPROCAL1P(e);
  }
}

// Decoupled softmax: adds positives to their side, each against the negatives of the row, and leaves their gradient in place
// of the weights. The sum is that of shares, and the dot that of costs.
static void NAME(fold_against)(const Side *negatives, REAL *value, const REAL *slope, REAL *weight, REAL *share, long m,
                               Side *side) {
  const REAL peak = (REAL)negatives->peak, rest = negatives->sum == 0 ? 0 : (REAL)log(negatives->sum);
  for (long j = 0; j < m; j++) value[j] = (value[j] + peak) + rest;
  NAME(soften)(value, share, m);
  for (long j = 0; j < m; j++) {
    side->sum += (double)weight[j] * share[j], side->mass += weight[j],
        side->dot += (double)weight[j] * SCALED * value[j];
    weight[j] *= share[j] * slope[j];
  }
}

// The positive side, once all of it is listed, and the negative one folded. Leaves the shares in place of the logits, and
// weight times slope in place of the weights.
static void NAME(fold_positives)(const Job *job, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                                 const Side *negatives, Side *side) {
  for (long from = 0; from < list->count; from += TILE) {
    const long m = NAME(pad)(list, from), real = list->count - from < m ? list->count - from : m;
    REAL *z = list->z + from, *weight = list->weight + from;
    NAME(curves)[job->positive](z, NAME(ones), t->value, t->slope, m, s);
    if (job->pool == DECOUPLED_SOFTMAX) {
      NAME(fold_against)(negatives, t->value, t->slope, weight, z, real, side);
      continue;
    }
    if (job->pool == THRESHOLD_SOFTMAX) NAME(oppose)(t->value, t->slope, m);
    for (long j = 0; j < real; j++) side->dot += (double)weight[j] * SCALED * t->value[j];
    const double older = NAME(add)(t->value, t->slope, weight, m, z, side);
    for (long j = 0; j < real; j++) weight[j] *= t->slope[j];
    if (older != 1) NAME(multiply)(list->z, (REAL)older, from);
  }
}

// Adds to the gradient what the listed positives from `from` to `to` have of it.
static void NAME(descend_positives)(const NAME(Positives) *list, long from, long to, double factor, double linear,
                                    REAL *g) {
  for (long j = from; j < to && (factor != 0 || linear != 0);
       j++) { // not REAL: beside a share that is subnormal it is infinite
    const double shared = factor == 0 ? 0 : factor * list->z[j];
    g[list->index[j]] += (REAL)(linear == 0 ? shared : shared + linear * list->weight[j]);
  }
}

// Softmax: one distribution over all known labels, whatever their weights.
static void NAME(make_known)(NAME(Tile) *t, long m) {
  for (long i = 0; i < m; i++) t->down[i] = (t->up[i] > 0) | (t->down[i] > 0);
}

// `peaks` is for those of the tiles, which their shares are relative to at first.
static double NAME(exponential_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t,
                                    NAME(Positives) *list, REAL *g, double *peaks) {
  Side sides[2] = {NOTHING_YET, NOTHING_YET}, negatives;
  for (long start = 0; start < job->labels; start += STEP) {
    const long m = job->labels - start < STEP ? job->labels - start : STEP;
    const REAL *z = NAME(begin)(job, row, start, m, t, list, g ? g + start : 0);
    if (job->pool == SOFTMAX) NAME(make_known)(t, m);
    NAME(curves)[job->negative](z, NAME(ones), t->value, t->slope, m, s + 1);
    if (job->pool == THRESHOLD_SOFTMAX) NAME(confine)(t->value, m);
    NAME(add)(t->value, t->slope, t->down, m, g ? g + start : t->slope, sides + 1);
    peaks[start / STEP] = sides[1].peak;
  }
  negatives = sides[1];
  take_joined(job, row, 1, &negatives);
  NAME(fold_positives)(job, s, t, list, &negatives, sides);
  const double raised = sides[0].peak;
  give_part(job, row, sides);
  for (int side = 0; side < 2; side++) take_joined(job, row, side, sides + side);
  const double value = finish(job, sides) * job->scale;
  if (g) {
    for (long start = 0; start < job->labels; start += STEP) {
      const long m = job->labels - start < STEP ? job->labels - start : STEP;
      const double behind = peaks[start / STEP] - sides[1].peak,
                   relative = behind == 0 || sides[1].factor == 0 ? 1 : exp(behind);
      NAME(multiply)(g + start, (REAL)(sides[1].factor * job->scale * relative), m);
    }
    const double relative = raised == sides[0].peak ? 1 : exp(raised - sides[0].peak);
    const double up = sides[0].factor == 0 ? 0 : sides[0].factor * job->scale * relative;
    NAME(descend_positives)(list, 0, list->count, up, sides[0].linear * job->scale, g);
  }
  list->count = 0;
  return value;
}

// What is 0 or less to weight exp(value).
CLONES static void NAME(exponentiate)(REAL *restrict value, const REAL *restrict weight, long m) {
  for (long i = 0; i < m; i++) value[i] = SELECT(weight[i] > 0, weight[i] * EXP(value[i]), 0);
}

// The positive sides of `many` short rows, whose values and slopes lie in t->up and t->rise: `ends` of them, and as
// `fold_positives` leaves them.
static void NAME(fold_short_positives)(const Job *job, long many, NAME(Tile) *t, NAME(Positives) *list,
                                       const long *ends, Side (*sides)[2]) {
  if (job->pool == THRESHOLD_SOFTMAX) NAME(oppose)(t->up, t->rise, list->count);
  for (long r = 0, from = 0, to; r < many; r++, from = to) {
    INTEGER highest = NAME(sortable)(-LARGE);
    to = ends[r];
    for (long j = from; j < to; j++) {
      const INTEGER x = NAME(sortable)(t->up[j]);
      highest = x > highest ? x : highest;
    }
    sides[r][0].peak = NAME(unsortable)(highest);
    for (long j = from; j < to; j++) list->z[j] = t->up[j] - (REAL)sides[r][0].peak;
  }
  NAME(exponentiate)(list->z, list->weight, NAME(pad)(list, 0));
  for (long r = 0, j = 0; r < many; r++)
    for (Side *side = sides[r]; j < ends[r]; j++) {
      side->sum += list->z[j], side->mass += list->weight[j], side->dot += (double)list->weight[j] * SCALED * t->up[j];
      list->z[j] *= t->rise[j], list->weight[j] *= t->rise[j];
    }
}

static void NAME(fold_short_against)(long many, NAME(Tile) *t, NAME(Positives) *list, const long *ends,
                                     Side (*sides)[2]) {
  for (long r = 0, from = 0; r < many; from = ends[r++])
    NAME(fold_against)(sides[r] + 1, t->up + from, t->rise + from, list->weight + from, list->z + from, ends[r] - from,
                       sides[r]);
}

// Where the listed positives of each of `many` short rows end.
static void NAME(find_ends)(const Job *job, long many, const NAME(Positives) *list, long *ends) {
  for (long r = 0, to = 0; r < many; ends[r++] = to)
    while (to < list->count && list->index[to] < (r + 1) * job->labels) to++;
}

// Several short rows that lie side by side, as one tile: one call of each curve for all of them.
static void NAME(exponential_short_rows)(const Job *job, long row, long many, const NAME(Settings) *s, NAME(Tile) *t,
                                         NAME(Positives) *list, REAL *values) {
  const long labels = job->labels, m = many * labels;
  long ends[TILE];
  Side sides[TILE][2];
  REAL *gradient = NAME(gradient)(job, row, t->z),
       *g = gradient ? gradient : t->z; // the logits are not needed to the end
  const REAL *z = NAME(begin)(job, row, 0, m, t, list, gradient);
  if (job->pool == SOFTMAX) NAME(make_known)(t, m);
  NAME(curves)[job->negative](z, NAME(ones), t->value, t->slope, m, s + 1);
  NAME(curves)[job->positive](list->z, NAME(ones), t->up, t->rise, NAME(pad)(list, 0), s);
  if (job->pool == THRESHOLD_SOFTMAX) NAME(confine)(t->value, m);
  NAME(find_ends)(job, many, list, ends);
  for (long r = 0; r < many; r++) {
    sides[r][0] = sides[r][1] = (Side)NOTHING_YET;
    NAME(add)(t->value + r * labels, t->slope + r * labels, t->down + r * labels, labels, g + r * labels, sides[r] + 1);
  }
  if (job->pool == DECOUPLED_SOFTMAX) NAME(fold_short_against)(many, t, list, ends, sides);
  else NAME(fold_short_positives)(job, many, t, list, ends, sides);
  for (long r = 0; r < many; r++) values[row + r] = (REAL)(finish(job, sides[r]) * job->scale);
  for (long r = 0, from = 0; r < many && gradient; from = ends[r++]) {
    const Side *up = sides[r];
    NAME(multiply)(g + r * labels, (REAL)(sides[r][1].factor * job->scale), labels);
    NAME(descend_positives)(list, from, ends[r], up->factor * job->scale, up->linear * job->scale, g);
  }
  list->count = 0;
  if (job->row_weight) NAME(weigh_rows)(job, row, many, values + row, gradient, t);
  if (gradient) NAME(store)(job, row, m, g);
}
