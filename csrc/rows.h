// All rows of a batch, for one real type; included twice.

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
    job->full[side] = is_sum(job) ? job->factors[side] * job->scale : 1;
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
  REAL value = (REAL)(job->pool == SUM          ? NAME(sum_row)(job, row, s, t, list, g, 0)
                      : job->pool == NONE_CLASS ? NAME(none_row)(job, row, s, t, list, g)
                      : job->pool == SIDE_MEANS ? NAME(mean_row)(job, row, s, t, list, g)
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
        (is_sum(job)               ? NAME(sum_short_rows)
         : job->pool == SIDE_MEANS ? NAME(mean_short_rows)
                                   : NAME(exponential_short_rows))(job, row, many, s, &t, &list, values);
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
