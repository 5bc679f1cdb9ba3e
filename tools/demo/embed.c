/*
 * embed.c - package descriptions into vectors: `apt-cache dumpavail | embed OUT`, deterministic.
 *
 *   description --> features --> TF-IDF weights --> sparse random projection --> smoothing --> OUT.fvecs
 *   names --> OUT.ids, short descriptions --> OUT.titles, a line for each row
 *
 * Features are the words of name, description, section, tags and dependencies, and the 3- to 5-grams of
 * the characters of name and description, all as 64-bit hashes. Each feature has a fixed sparse random
 * vector, drawn from its hash, and a package is the weighted sum of those of its features. Two packages
 * that share rare features are near.
 *
 * Most packages have one line of description, so packages of the same kind often share no word at
 * all. Smoothing helps: the vector of a word becomes the mean of the packages that use it, and
 * a package a weighted sum of its words again. "httpd" and "web server" so come near each other, because
 * the same packages have them.
 *
 * `embed --generate N OUT` writes N clustered random vectors instead, for machines without apt.
 */
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DIM             256u
#define SEED            UINT64_C(0x6b697468) /* "kith" */
#define SPARSE          24u                  /* places of a feature's random vector that are not zero */
#define PACKAGES_MIN    1000u                /* fewer are not worth a demonstration: exit status 3 */
#define PACKAGES_MAX    (1u << 20)
#define FEATURES_LOG2   20u /* places of the feature table; Debian 12 fills half of them */
#define SMOOTH_ROUNDS   3u
#define SMOOTH_USES_MIN 2u   /* a word used once says nothing about others */
#define SMOOTH_WEIGHT   1.0f /* of the smoothed vector beside the plain one */
#define CLUSTERS        200u /* of generated vectors */
#define EXIT_TOO_FEW    3

/* What a feature of a field counts, before its rarity. */
#define WEIGHT_NAME_WORD  1.0f
#define WEIGHT_NAME_GRAM  0.08f
#define WEIGHT_SHORT_WORD 1.0f
#define WEIGHT_SHORT_GRAM 0.08f
#define WEIGHT_LONG_WORD  0.3f
#define WEIGHT_SECTION    0.8f
#define WEIGHT_TAG        0.7f
#define WEIGHT_PROVIDES   0.8f
#define WEIGHT_DEPENDS    0.35f

struct feature {
    uint64_t hash;  /* 0: empty place */
    uint32_t uses;  /* packages that have it */
    uint32_t dense; /* number of its smoothed vector + 1; 0: none */
    float sum;      /* of the weights that went into it */
};

/* One feature of one package. */
struct term {
    uint32_t feature; /* place in the table */
    float weight;
    bool word; /* takes part in smoothing */
};

struct package {
    char *name, *title;  /* title: the short description */
    size_t first, count; /* terms */
};

struct corpus {
    struct feature *features;
    size_t feature_count;
    struct term *terms;
    size_t term_count, term_capacity;
    struct package *packages;
    size_t package_count, package_capacity;
};

/* The fields of one record that matter. */
struct record {
    char *name, *description, *details, *section, *tags, *provides, *depends;
};

static void *need(void *p)
{
    if (p == NULL) {
        fprintf(stderr, "embed: out of memory\n");
        exit(1);
    }
    return p;
}

/* splitmix64: a good enough generator, and a good hash finisher. */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

static uint64_t hash_bytes(const char *text, size_t len, uint64_t kind)
{
    uint64_t h = mix(SEED + kind);
    for (size_t i = 0; i < len; i++)
        h = (h ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    h = mix(h);
    return h == 0 ? 1 : h;
}

/* ---- features ------------------------------------------------------------------------------ */

enum kind { KIND_WORD = 1, KIND_GRAM = 2, KIND_SECTION = 3, KIND_TAG = 4, KIND_DEPENDS = 5 };

static void add_term(struct corpus *c, const char *text, size_t len, enum kind kind, float weight)
{
    const size_t mask = ((size_t)1 << FEATURES_LOG2) - 1;
    uint64_t hash = hash_bytes(text, len, kind);
    size_t at = hash & mask;
    while (c->features[at].hash != 0 && c->features[at].hash != hash)
        at = (at + 1) & mask;
    if (c->features[at].hash == 0) {
        if (c->feature_count > mask / 4 * 3)
            return; /* the table is full: later rarities are left out */
        c->features[at].hash = hash;
        c->feature_count++;
    }
    struct package *p = &c->packages[c->package_count];
    for (size_t i = p->first; i < p->first + p->count; i++) {
        struct term *seen = &c->terms[i];
        if (seen->feature != at)
            continue;
        seen->weight = fmaxf(seen->weight, weight) + 0.25f * fminf(seen->weight, weight);
        return;
    }
    if (c->term_count == c->term_capacity) {
        c->term_capacity = 2 * c->term_capacity + 4096;
        c->terms = need(realloc(c->terms, c->term_capacity * sizeof *c->terms));
    }
    c->terms[c->term_count++] = (struct term){ (uint32_t)at, weight, kind != KIND_GRAM };
    c->features[at].uses++;
    p->count++;
}

static bool is_word_byte(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c >= 0x80 || c == '+' || c == '#';
}

/* Length of a word without the endings that only grammar asks for. */
static size_t stem(const char *word, size_t len)
{
    if (len > 5 && strncmp(word + len - 3, "ing", 3) == 0)
        return len - 3;
    if (len > 5 && strncmp(word + len - 3, "ies", 3) == 0)
        return len - 3;
    if (len > 4 && strncmp(word + len - 2, "ed", 2) == 0)
        return len - 2;
    if (len > 4 && strncmp(word + len - 2, "er", 2) == 0)
        return len - 2;
    if (len > 3 && word[len - 1] == 's' && word[len - 2] != 's')
        len--;
    if (len > 4 && (word[len - 1] == 'e' || word[len - 1] == 'y'))
        len--;
    return len;
}

/* Words, and the character n-grams of each word with its borders. text is lower case. */
static void add_text(struct corpus *c, const char *text, float word_weight, float gram_weight)
{
    static const char *const EMPTY[] = { "a",   "an",   "and", "as",   "at",   "by", "for", "from",
                                         "in",  "is",   "it",  "its",  "of",   "on", "or",  "that",
                                         "the", "this", "to",  "with", "your", "be" };
    for (const char *p = text; *p != '\0';) {
        if (!is_word_byte((unsigned char)*p)) {
            p++;
            continue;
        }
        size_t len = 0;
        while (is_word_byte((unsigned char)p[len]))
            len++;
        bool empty = false;
        for (size_t i = 0; i < sizeof EMPTY / sizeof *EMPTY; i++)
            if (strlen(EMPTY[i]) == len && strncmp(EMPTY[i], p, len) == 0)
                empty = true;
        if (!empty) {
            add_term(c, p, stem(p, len), KIND_WORD, word_weight);
            if (gram_weight > 0 && len < 40) {
                char framed[48];
                int n = snprintf(framed, sizeof framed, "<%.*s>", (int)len, p);
                for (int size = 3; size <= 5; size++)
                    for (int i = 0; i + size <= n; i++)
                        add_term(c, framed + i, (size_t)size, KIND_GRAM, gram_weight);
            }
        }
        p += len;
    }
}

/* Items between commas or bars; what follows a blank or a colon (versions, architectures) is left away. */
static void add_list(struct corpus *c, const char *text, enum kind kind, float weight)
{
    for (const char *p = text; *p != '\0';) {
        p += strspn(p, " ,|\n");
        size_t len = strcspn(p, ",|\n"), cut = strcspn(p, " (,|\n");
        if (kind == KIND_DEPENDS && memchr(p, ':', cut) != NULL)
            cut = (size_t)((const char *)memchr(p, ':', cut) - p);
        if (cut > 0)
            add_term(c, p, cut, kind, weight);
        p += len;
    }
}

static void lower(char *text)
{
    for (; *text != '\0'; text++)
        if (*text >= 'A' && *text <= 'Z')
            *text = (char)(*text - 'A' + 'a');
}

static void add_package(struct corpus *c, struct record *r)
{
    if (c->package_count == c->package_capacity) {
        c->package_capacity = 2 * c->package_capacity + 1024;
        c->packages = need(realloc(c->packages, c->package_capacity * sizeof *c->packages));
    }
    c->packages[c->package_count] =
        (struct package){ need(strdup(r->name)), need(strdup(r->description != NULL ? r->description : "")),
                          c->term_count, 0 };
    char *const texts[] = { r->name, r->description, r->details };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i] != NULL)
            lower(texts[i]);

    add_text(c, r->name, WEIGHT_NAME_WORD, WEIGHT_NAME_GRAM);
    if (r->description != NULL)
        add_text(c, r->description, WEIGHT_SHORT_WORD, WEIGHT_SHORT_GRAM);
    if (r->details != NULL)
        add_text(c, r->details, WEIGHT_LONG_WORD, 0);
    if (r->section != NULL)
        add_term(c, r->section, strlen(r->section), KIND_SECTION, WEIGHT_SECTION);
    if (r->tags != NULL)
        add_list(c, r->tags, KIND_TAG, WEIGHT_TAG);
    if (r->provides != NULL)
        add_list(c, r->provides, KIND_DEPENDS, WEIGHT_PROVIDES);
    if (r->depends != NULL)
        add_list(c, r->depends, KIND_DEPENDS, WEIGHT_DEPENDS);
    c->package_count++;
}

/* ---- records ------------------------------------------------------------------------------- */

static void append(char **field, const char *text)
{
    size_t old = *field == NULL ? 0 : strlen(*field);
    size_t len = strlen(text);
    *field = need(realloc(*field, old + len + 2));
    if (old > 0)
        (*field)[old++] = '\n';
    memcpy(*field + old, text, len + 1);
}

static void clear_record(struct record *r)
{
    char **const fields[] = { &r->name, &r->description, &r->details, &r->section,
                              &r->tags, &r->provides,    &r->depends };
    for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
        free(*fields[i]);
        *fields[i] = NULL;
    }
}

/* Names met before: a package in two versions counts once. */
static bool known(const struct corpus *c, uint32_t *table, size_t mask, const char *name)
{
    size_t at = hash_bytes(name, strlen(name), 0) & mask;
    while (table[at] != 0) {
        if (strcmp(c->packages[table[at] - 1].name, name) == 0)
            return true;
        at = (at + 1) & mask;
    }
    table[at] = (uint32_t)c->package_count + 1;
    return false;
}

static void read_packages(struct corpus *c, FILE *in)
{
    const size_t mask = 2 * PACKAGES_MAX - 1;
    uint32_t *names = need(calloc(mask + 1, sizeof *names));
    struct record r = { 0 };
    char *line = NULL;
    size_t capacity = 0;
    char **field = NULL; /* that a continuation line goes to */
    for (;;) {
        ssize_t len = getline(&line, &capacity, in);
        if (len > 0 && line[len - 1] == '\n')
            line[--len] = '\0';
        if (len <= 0) { /* the end of a record */
            if (r.name != NULL && c->package_count < PACKAGES_MAX && !known(c, names, mask, r.name))
                add_package(c, &r);
            clear_record(&r);
            field = NULL;
            if (feof(in) || ferror(in))
                break;
            continue;
        }
        if (line[0] == ' ') {
            if (field == &r.description)
                field = &r.details; /* the long text follows the short one */
            if (field != NULL)
                append(field, line + 1);
            continue;
        }
        const struct {
            const char *key;
            char **field;
        } fields[] = { { "Package: ", &r.name },
                       { "Description: ", &r.description },
                       { "Description-en: ", &r.description },
                       { "Section: ", &r.section },
                       { "Tag: ", &r.tags },
                       { "Provides: ", &r.provides },
                       { "Depends: ", &r.depends } };
        field = NULL;
        for (size_t i = 0; i < sizeof fields / sizeof *fields; i++) {
            size_t n = strlen(fields[i].key);
            if (strncmp(line, fields[i].key, n) != 0)
                continue;
            field = fields[i].field;
            append(field, line + n);
        }
    }
    free(line);
    free(names);
}

/* ---- vectors ------------------------------------------------------------------------------- */

static void add_scaled(float *to, const float *from, float scale)
{
    for (uint32_t i = 0; i < DIM; i++)
        to[i] += scale * from[i];
}

static void normalise(float *v)
{
    float sum = 0;
    for (uint32_t i = 0; i < DIM; i++)
        sum += v[i] * v[i];
    if (sum == 0)
        v[0] = sum = 1;
    float scale = 1 / sqrtf(sum);
    for (uint32_t i = 0; i < DIM; i++)
        v[i] *= scale;
}

/* The fixed sparse vector of a feature: SPARSE places, each +1 or -1, drawn from its hash. */
static void project(float *to, uint64_t hash, float weight)
{
    uint64_t state = hash;
    for (uint32_t i = 0; i < SPARSE; i++) {
        state = mix(state);
        to[state % DIM] += state >> 63 ? weight : -weight;
    }
}

/* Rarity of a feature times its weight in the package; very common ones count next to nothing. */
static float term_value(const struct corpus *c, const struct term *t)
{
    float idf = logf((float)c->package_count / (float)c->features[t->feature].uses);
    return t->weight * idf;
}

/* What all vectors have in common says nothing about any of them. */
static void remove_mean(float *vectors, size_t n)
{
    double mean[DIM] = { 0 };
    float common[DIM];
    for (size_t p = 0; p < n; p++)
        for (uint32_t i = 0; i < DIM; i++)
            mean[i] += (double)vectors[p * DIM + i];
    for (uint32_t i = 0; i < DIM; i++)
        common[i] = (float)(mean[i] / (double)n);
    for (size_t p = 0; p < n; p++)
        add_scaled(vectors + p * DIM, common, -1);
}

static void smooth(struct corpus *c, float *vectors)
{
    size_t dense_count = 0;
    for (size_t i = 0; i < (size_t)1 << FEATURES_LOG2; i++)
        c->features[i].dense = 0;
    for (size_t i = 0; i < c->term_count; i++) {
        struct feature *f = &c->features[c->terms[i].feature];
        if (c->terms[i].word && f->uses >= SMOOTH_USES_MIN && f->dense == 0)
            f->dense = (uint32_t)++dense_count;
    }
    float *dense = need(calloc(dense_count + 1, DIM * sizeof *dense));
    for (size_t p = 0; p < c->package_count; p++) {
        const struct package *package = &c->packages[p];
        for (size_t i = package->first; i < package->first + package->count; i++) {
            const struct feature *f = &c->features[c->terms[i].feature];
            if (f->dense != 0)
                add_scaled(dense + (size_t)f->dense * DIM - DIM, vectors + p * DIM, c->terms[i].weight);
        }
    }
    for (size_t i = 0; i < dense_count; i++)
        normalise(dense + i * DIM);
    for (size_t p = 0; p < c->package_count; p++) {
        const struct package *package = &c->packages[p];
        float sum[DIM] = { 0 };
        for (size_t i = package->first; i < package->first + package->count; i++) {
            const struct feature *f = &c->features[c->terms[i].feature];
            if (f->dense != 0)
                add_scaled(sum, dense + (size_t)f->dense * DIM - DIM, term_value(c, &c->terms[i]));
        }
        normalise(sum);
        memcpy(vectors + p * DIM, sum, sizeof sum);
    }
    free(dense);
}

static float *embed(struct corpus *c)
{
    float *plain = need(calloc(c->package_count, DIM * sizeof *plain));
    float *smoothed = need(calloc(c->package_count, DIM * sizeof *smoothed));
    for (size_t p = 0; p < c->package_count; p++) {
        const struct package *package = &c->packages[p];
        for (size_t i = package->first; i < package->first + package->count; i++)
            project(plain + p * DIM, c->features[c->terms[i].feature].hash, term_value(c, &c->terms[i]));
        normalise(plain + p * DIM);
    }
    memcpy(smoothed, plain, c->package_count * DIM * sizeof *plain);
    for (unsigned round = 0; round < SMOOTH_ROUNDS; round++) {
        smooth(c, smoothed);
        remove_mean(smoothed, c->package_count);
        for (size_t p = 0; p < c->package_count; p++)
            normalise(smoothed + p * DIM);
    }
    for (size_t p = 0; p < c->package_count; p++) {
        add_scaled(plain + p * DIM, smoothed + p * DIM, SMOOTH_WEIGHT);
        normalise(plain + p * DIM);
    }
    free(smoothed);
    return plain;
}

/* ---- generated vectors --------------------------------------------------------------------- */

static float gaussian(uint64_t *state)
{
    double u = 0;
    for (int i = 0; i < 12; i++) { /* the sum of twelve uniform numbers is near enough */
        *state = mix(*state);
        u += (double)(*state >> 11) * 0x1p-53;
    }
    return (float)(u - 6);
}

static float *generate(struct corpus *c, size_t n)
{
    uint64_t state = SEED;
    float *centers = need(malloc(CLUSTERS * DIM * sizeof *centers));
    float *vectors = need(malloc(n * DIM * sizeof *vectors));
    c->packages = need(calloc(n, sizeof *c->packages));
    for (size_t i = 0; i < CLUSTERS * DIM; i++)
        centers[i] = gaussian(&state);
    for (size_t p = 0; p < n; p++) {
        char name[48];
        unsigned cluster = (unsigned)((state = mix(state)) % CLUSTERS);
        snprintf(name, sizeof name, "generated-%u-%zu", cluster, p);
        c->packages[p].name = need(strdup(name));
        c->packages[p].title = need(strdup("generated"));
        for (uint32_t i = 0; i < DIM; i++)
            vectors[p * DIM + i] = centers[cluster * DIM + i] + 0.7f * gaussian(&state);
        normalise(vectors + p * DIM);
    }
    c->package_count = n;
    free(centers);
    return vectors;
}

/* ---- output -------------------------------------------------------------------------------- */

static FILE *open_output(const char *stem, const char *suffix)
{
    char path[4096];
    snprintf(path, sizeof path, "%s%s", stem, suffix);
    FILE *f = fopen(path, "wbe");
    if (f == NULL) {
        fprintf(stderr, "embed: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    return f;
}

static int write_output(const struct corpus *c, const float *vectors, const char *stem)
{
    const uint32_t dim = DIM;
    FILE *fvecs = open_output(stem, ".fvecs");
    FILE *ids = open_output(stem, ".ids");
    FILE *titles = open_output(stem, ".titles");
    for (size_t p = 0; p < c->package_count; p++) {
        fwrite(&dim, sizeof dim, 1, fvecs);
        fwrite(vectors + p * DIM, sizeof *vectors, DIM, fvecs);
        fprintf(ids, "%s\n", c->packages[p].name);
        fprintf(titles, "%s\n", c->packages[p].title);
    }
    FILE *const files[] = { fvecs, ids, titles };
    bool bad = false;
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        bad |= ferror(files[i]) != 0;
        bad |= fclose(files[i]) != 0;
    }
    if (bad) {
        fprintf(stderr, "embed: %s: %s\n", stem, strerror(errno));
        return 1;
    }
    return 0;
}

int main(int argc, char **argv)
{
    struct corpus c = { 0 };
    float *vectors = NULL;
    bool generated = argc == 4 && strcmp(argv[1], "--generate") == 0;
    if (argc != 2 && !generated) {
        fprintf(stderr, "usage: apt-cache dumpavail | embed OUT\n       embed --generate N OUT\n");
        return 2;
    }
    if (generated) {
        size_t n = strtoul(argv[2], NULL, 10);
        if (n < 1 || n > PACKAGES_MAX) {
            fprintf(stderr, "embed: N is 1 to %u\n", PACKAGES_MAX);
            return 2;
        }
        vectors = generate(&c, n);
    } else {
        c.features = need(calloc((size_t)1 << FEATURES_LOG2, sizeof *c.features));
        read_packages(&c, stdin);
        if (c.package_count < PACKAGES_MIN) {
            fprintf(stderr, "embed: %zu packages, at least %u are wanted\n", c.package_count, PACKAGES_MIN);
            return EXIT_TOO_FEW;
        }
        vectors = embed(&c);
    }
    int status = write_output(&c, vectors, argv[argc - 1]);
    for (size_t p = 0; p < c.package_count; p++) {
        free(c.packages[p].name);
        free(c.packages[p].title);
    }
    free(c.packages);
    free(c.terms);
    free(c.features);
    free(vectors);
    return status;
}
