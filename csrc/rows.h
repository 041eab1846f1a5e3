// Row loops over tiles for one real type; included twice. They know pools, and no curve.

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

// ---- sum: one pass; what a label costs goes to t->value

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

// Several short rows that lie side by side, as one tile.
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

// ---- pools of exponentials: a pass over the row for the state, and one over what it left behind for the gradient

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

// The positive side, once all of it is listed; leaves the shares in place of the logits.
static void NAME(fold_positives)(const Job *job, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                                 Side *side) {
  for (long from = 0; from < list->count; from += TILE) {
    const long m = NAME(pad)(list, from), real = list->count - from < m ? list->count - from : m;
    NAME(curves)[job->positive](list->z + from, NAME(ones), t->value, t->slope, m, s);
    for (long j = 0; j < real; j++) side->dot += (double)list->weight[from + j] * t->value[j];
    const double older = NAME(add)(t->value, t->slope, list->weight + from, m, list->z + from, side);
    if (job->pool == SOFTMAX)
      for (long j = 0; j < real; j++) list->z[from + j] = list->weight[from + j] * t->slope[j];
    else if (older != 1) NAME(multiply)(list->z, (REAL)older, from);
  }
}

// Softmax: one distribution over all known labels, whatever their weights.
static void NAME(make_known)(NAME(Tile) *t, long m) {
  for (long i = 0; i < m; i++) t->down[i] = (t->up[i] > 0) | (t->down[i] > 0);
}

// `peaks` is for those of the tiles, which their shares are relative to at first.
static double NAME(exponential_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t,
                                    NAME(Positives) *list, REAL *g, double *peaks) {
  Side sides[2] = {{-LARGE, 0, 0, 0, 0}, {-LARGE, 0, 0, 0, 0}};
  for (long start = 0; start < job->labels; start += STEP) {
    const long m = job->labels - start < STEP ? job->labels - start : STEP;
    const REAL *z = NAME(begin)(job, row, start, m, t, list, g ? g + start : 0);
    if (job->pool == SOFTMAX) NAME(make_known)(t, m);
    NAME(curves)[job->negative](z, NAME(ones), t->value, t->slope, m, s + 1);
    NAME(add)(t->value, t->slope, t->down, m, g ? g + start : t->slope, sides + 1);
    peaks[start / STEP] = sides[1].peak;
  }
  NAME(fold_positives)(job, s, t, list, sides);
  const double raised = sides[0].peak;
  for (int side = 0; side < 2 && job->part_state; side++)
    memcpy(job->part_state + (row * 2 + side) * PARTS, sides + side, PARTS * sizeof(double));
  for (int side = 0; side < 2 && job->joined_state; side++)
    memcpy(sides + side, job->joined_state + (row * 2 + side) * PARTS, PARTS * sizeof(double));
  const double value = finish(job, sides) * job->scale;
  if (g) {
    for (long start = 0; start < job->labels; start += STEP) {
      const long m = job->labels - start < STEP ? job->labels - start : STEP;
      const double behind = peaks[start / STEP] - sides[1].peak,
                   relative = behind == 0 || sides[1].factor == 0 ? 1 : exp(behind);
      NAME(multiply)(g + start, (REAL)(sides[1].factor * job->scale * relative), m);
    }
    const double relative = job->pool == SOFTMAX || raised == sides[0].peak ? 1 : exp(raised - sides[0].peak);
    const double factor =
        sides[0].factor * job->scale * relative; // not REAL: beside a share that is subnormal it is infinite
    for (long j = 0; j < list->count && factor != 0; j++) g[list->index[j]] += (REAL)(factor * list->z[j]);
  }
  list->count = 0;
  return value;
}

// What is 0 or less to weight exp(value).
CLONES static void NAME(exponentiate)(REAL *restrict value, const REAL *restrict weight, long m) {
  for (long i = 0; i < m; i++) value[i] = SELECT(weight[i] > 0, weight[i] * EXP(value[i]), 0);
}

// The positive sides of `many` short rows, whose values lie in t->up: `ends` of them, and exponentials in place of the logits.
static void NAME(fold_short_positives)(const Job *job, long many, const NAME(Tile) *t, NAME(Positives) *list,
                                       long *ends, Side (*sides)[2]) {
  for (long r = 0, from = 0, to = 0; r < many; r++, from = to) {
    INTEGER highest = NAME(sortable)(-LARGE);
    for (; to < list->count && list->index[to] < (r + 1) * job->labels; to++) {
      const INTEGER x = NAME(sortable)(t->up[to]);
      highest = x > highest ? x : highest;
    }
    const REAL peak = NAME(unsortable)(highest);
    for (long j = from; j < to; j++) list->z[j] = t->up[j] - peak;
    ends[r] = to, sides[r][0] = (Side){peak, 0, 0, 0, 0};
  }
  NAME(exponentiate)(list->z, list->weight, NAME(pad)(list, 0));
  for (long r = 0, j = 0; r < many; r++)
    for (Side *side = sides[r]; j < ends[r]; j++)
      side->sum += list->z[j], side->mass += list->weight[j], side->dot += (double)list->weight[j] * t->up[j];
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
  NAME(fold_short_positives)(job, many, t, list, ends, sides);
  for (long r = 0; r < many; r++) {
    sides[r][1] = (Side){-LARGE, 0, 0, 0, 0};
    NAME(add)(t->value + r * labels, t->slope + r * labels, t->down + r * labels, labels, g + r * labels, sides[r] + 1);
  }
  for (long r = 0; r < many; r++) values[row + r] = (REAL)(finish(job, sides[r]) * job->scale);
  for (long r = 0, j = 0; r < many && gradient; r++) {
    const double up = sides[r][0].factor * job->scale; // as above
    const REAL *share = job->pool == SOFTMAX ? list->weight : list->z;
    NAME(multiply)(g + r * labels, (REAL)(sides[r][1].factor * job->scale), labels);
    for (; j < ends[r]; j++)
      if (up != 0) g[list->index[j]] += (REAL)(up * share[j] * t->rise[j]);
  }
  list->count = 0;
  if (job->row_weight) NAME(weigh_rows)(job, row, many, values + row, gradient, t);
  if (gradient) NAME(store)(job, row, m, g);
}

// ---- all rows

static int NAME(may_be_probabilities)(const Job *job) {
  NAME(Tile) t;
  long m = !job->rows ? 0 : job->labels < TILE ? job->labels : TILE, i = 0;
  const REAL *z = NAME(load)(job, 0, 0, m, t.z);
  while (i < m && z[i] >= 0 && z[i] <= 1) i++;
  return m > 0 && i == m;
}

// The settings of both curves in the type of the values; what the weights of a label are multiplied with.
static void NAME(take_settings)(Job *job, NAME(Settings) *s) {
  for (int side = 0; side < 2; side++) {
    REAL *at = (REAL *)(s + side);
    for (int i = 0; i < SETTINGS; i++) at[i] = (REAL)job->settings[side][i];
    job->full[side] = job->pool == SUM ? job->factors[side] * job->scale : 1;
  }
}

// How many rows make a tile: one, unless they are short, with logits and targets without gaps.
static long NAME(rows_in_a_tile)(const Job *job) {
  int dense = job->logit_stride == job->labels && (job->target_stride == job->labels || job->target_type == SPARSE);
  int whole = !job->part_state && !job->joined_state;
  return dense && whole && job->labels > 0 && job->labels <= TILE / 2 ? TILE / job->labels : 1;
}

// How many labels are known: of which one of both weights is not 0, or, where targets are 0 or 1, that are not masked.
CLONES static int64_t NAME(count_known)(const REAL *restrict up, const REAL *restrict down, long m) {
  INTEGER known = 0;
  for (long i = 0; i < m; i++) known += up[i] + down[i] > 0;
  return known;
}

CLONES static int64_t NAME(count_unmasked)(const Job *job, long row, long start, long m) {
  INTEGER known = 0;
  if (!job->mask) return m;
  const uint8_t *restrict mask = job->mask + row * job->mask_stride + start;
  for (long i = 0; i < m; i++) known += mask[i] != 0;
  return known;
}

// Has a label that is positive a weight?
static int NAME(weighs)(const Job *job, long row, long label) {
  const REAL *w = (const REAL *)job->weight, *p = (const REAL *)job->pos_weight;
  return (!job->mask || job->mask[row * job->mask_stride + label]) &&
         (!w || (float)w[row * job->weight_stride + label] > 0) &&
         (!p || (float)p[row * job->pos_weight_stride + label] > 0);
}

// What the reduction divides by, of the rows of a tile: labels that are known, rows that have one, or rows with a positive.
static int64_t NAME(count)(const Job *job, long row, long many, NAME(Tile) *t, NAME(Positives) *list) {
  const long end = many * job->labels, step = many > 1 ? end : STEP;
  int64_t found = 0;
  for (long start = 0; start < end && !(found && job->counted != LABELS); start += step) {
    const long m = end - start < step ? end - start : step, width = m < job->labels ? m : job->labels;
    const int of_rows = job->counted == POSITIVE_ROWS;
    long last = -1;
    list->count = 0;
    const int scanned = t->hard && NAME(scan)(job, row * job->target_stride + start, start, m, t, list);
    if (!scanned) NAME(weights)(job, row, start, m, t, list);
    const long together = job->counted == LABELS && (!scanned || job->mask_stride == job->labels) ? m : width;
    for (long at = 0; at < m && !of_rows; at += together) {
      const int64_t known = scanned ? NAME(count_unmasked)(job, row + at / width, start, together)
                                    : NAME(count_known)(t->up + at, t->down + at, together);
      found += job->counted == LABELS ? known : known > 0;
    }
    for (long j = 0; j < list->count && of_rows; j++) {
      const long at = list->index[j] - start, its = at / width;
      if (its != last && (scanned ? NAME(weighs)(job, row + its, start + at % width) : (float)t->up[at] > 0))
        found++, last = its; // as `Supervision.number_of` counts
    }
  }
  list->count = 0;
  return found;
}

static REAL NAME(long_row)(const Job *job, long row, const NAME(Settings) *s, NAME(Tile) *t, NAME(Positives) *list,
                           REAL *buffer, double *peaks) {
  REAL *g = NAME(gradient)(job, row, buffer);
  REAL value = (REAL)(job->pool == SUM ? NAME(sum_row)(job, row, s, t, list, g)
                                       : NAME(exponential_row)(job, row, s, t, list, g, peaks));
  if (job->row_weight) NAME(weigh_rows)(job, row, 1, &value, g, t);
  if (g) NAME(store)(job, row, job->labels, g);
  return value;
}

// All rows: value and gradient; or, without `values`, what the reduction divides by, which is returned.
static int64_t NAME(pass)(Job *job, REAL *values) {
  NAME(Settings) s[2];
  NAME(take_settings)(job, s);
  const long together = NAME(rows_in_a_tile)(job), blocks = (job->rows + together - 1) / together;
  const int threads = job->threads;
  int odd = 0, unknown = 0, failed = 0;
  int64_t found = 0;
#pragma omp parallel num_threads(threads) reduction(| : odd, unknown, failed) reduction(+ : found) if (threads > 1)
  {
    NAME(Tile) t;
    NAME(Positives) list;
    const size_t buffered = values && job->gradient && NAME(converts)(job) ? job->labels * sizeof(REAL) : 0;
    REAL *buffer = buffered ? malloc(buffered) : 0;
    double *peaks = malloc((job->labels / STEP + 1) * sizeof(double));
    failed = !NAME(allocate)(job, &list) || !peaks || (buffered && !buffer);
    t.odd = t.unknown = 0;
    t.hard = job->target_type == (sizeof(REAL) == 8 ? F64 : F32) || job->target_type == U8;
    t.hard &= !job->ignoring && job->smoothing == 0;
    t.even = t.hard && !job->mask && !job->weight && !job->pos_weight;
#pragma omp for schedule(guided)
    for (long block = 0; block < blocks; block++) {
      const long row = block * together, many = job->rows - row < together ? job->rows - row : together;
      if (failed) continue;
      if (!values) found += NAME(count)(job, row, many, &t, &list);
      else if (together > 1)
        (job->pool == SUM ? NAME(sum_short_rows) : NAME(exponential_short_rows))(job, row, many, s, &t, &list, values);
      else values[row] = NAME(long_row)(job, row, s, &t, &list, buffer, peaks);
    }
    free(list.index), free(list.z), free(list.weight), free(peaks), free(buffer);
    odd = t.odd, unknown = t.unknown;
  }
  job->needs_check = odd, job->unknown = unknown, job->failed |= failed;
  return found;
}

// Counts with weights of y and 1 - y: of those that a user gives, only positives of weight 0 are not counted as such.
static int64_t NAME(divisor)(Job *job) {
  Job counting = *job;
  counting.scale = counting.factors[0] = counting.factors[1] = 1;
  if (job->counted != POSITIVE_ROWS) counting.weight = counting.pos_weight = 0;
  const int64_t found = NAME(pass)(&counting, 0);
  job->failed |= counting.failed;
  return found;
}

static void NAME(rescale)(const Job *job, REAL *values, REAL factor) {
  for (int64_t row = 0; row < job->rows; row++) values[row] *= factor;
  for (int64_t i = 0; i < job->rows * job->labels && job->gradient; i++) ((REAL *)job->gradient)[i] *= factor;
}

static void NAME(run)(Job *job) {
  const int given = job->mask || job->ignoring || job->counted == POSITIVE_ROWS;
  const double scale = job->scale;
  REAL *values = job->value ? job->value : calloc(job->rows + 1, sizeof(REAL));
  if (!values) {
    job->failed = 1;
    return;
  }
  int64_t count = job->counted == LABELS ? job->rows * job->labels : job->rows;
  if (job->counted && given) count = NAME(divisor)(job);
  if (job->counted) job->scale = scale / (count > 0 ? count : 1);
  NAME(pass)(job, values);
  if (job->counted && !given && job->unknown) { // some were NaN
    const int64_t known = NAME(divisor)(job);
    job->scale = scale / (known > 0 ? known : 1);
    if (known != count && job->gradient && NAME(converts)(job)) NAME(pass)(job, values);
    else if (known != count) NAME(rescale)(job, values, (REAL)count / (known > 0 ? known : 1));
  }
  double total = 0;
  for (int64_t row = 0; row < job->rows && job->total; row++) total += values[row];
  if (job->total) *(REAL *)job->total = (REAL)total;
  if (!job->value) free(values);
  job->looks_like_probabilities = NAME(may_be_probabilities)(job);
}
