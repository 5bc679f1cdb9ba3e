/*
 * model.hpp - what the relacy models of the protocol share: running a model, and running it broken.
 *
 * A model is a rl::test_suite that plays both halves of one hand-over of shm/PROTOCOL.md with the
 * orders and fences that the code uses. relacy runs it under many schedules, lets every load return
 * any value that C11 allows at that place, and stops at the first failed assertion. That says more
 * than any run on x86 or under qemu, neither of which shows stale loads.
 *
 * Every order and fence that the argument needs can be taken out by name. With such a mutant the
 * model has to fail: a model that cannot fail proves nothing.
 */
#ifndef KITHI_TESTS_RACE_MODEL_HPP
#define KITHI_TESTS_RACE_MODEL_HPP

#include <cstdio>
#include <ostream>
#include <streambuf>

#include <relacy/relacy.hpp>

/* The mutant that is being run, an enumerator of the model; 0 is the protocol as it is. */
static int mutant;

/* The order of an access, or relaxed when the mutant takes it away. */
static inline rl::memory_order order_unless(int m, rl::memory_order order)
{
    return mutant == m ? rl::mo_relaxed : order;
}

/* A fence, or nothing when the mutant takes it away. */
static inline void fence_unless(int m, rl::memory_order order)
{
    if (mutant != m)
        rl::atomic_thread_fence(order, $);
}

/*
 * How relacy looks. The full search tries every interleaving, with loads that lag by at most one store;
 * a model whose `exhaustive` is false has too many of them and gets those with few preemptions. The random
 * search lets loads lag by more, but relacy's generator has about 2^17 sequences for each value of the
 * upper half of the schedule's number, so it is run in stretches that differ there.
 */
enum { MODEL_PREEMPTIONS = 3, MODEL_STRETCHES = 16, MODEL_STRETCH_RUNS = 50000 };

/*
 * What relacy prints, in memory of its own: relacy replaces operator new while a model runs, so that a
 * string stream would grow in one heap and be freed in another.
 */
class model_report : public std::streambuf
{
  public:
    model_report()
    {
        setp(text_, text_ + sizeof(text_) - 1);
    }
    const char *text()
    {
        *pptr() = '\0';
        return text_;
    }

  private:
    /* Full: the rest of the history is dropped. */
    int_type overflow(int_type c) override
    {
        return traits_type::not_eof(c);
    }

    char text_[1 << 16];
};

template <typename model>
static bool model_search(model_report *report, rl::scheduler_type_e how, unsigned stretch, long *out_runs)
{
    std::ostream stream(report);
    rl::test_params params;
    char first[32];

    rl::iteration_t start = static_cast<rl::iteration_t>(stretch) << 32;
    params.iteration_count = start + MODEL_STRETCH_RUNS;
    if (how == rl::random_scheduler_type) {
        std::snprintf(first, sizeof(first), "%llu", static_cast<unsigned long long>(start));
        params.initial_state = first;
    }
    params.search_type = how;
    params.context_bound = MODEL_PREEMPTIONS;
    params.output_stream = &stream;
    params.progress_stream = &stream;
    bool holds = rl::simulate<model>(params);
    *out_runs += static_cast<long>(params.stop_iteration - start);
    return holds;
}

/* Returns whether the current mutant holds in every schedule tried, and how many those were. */
template <typename model> static bool model_holds(model_report *report, long *out_runs)
{
    rl::scheduler_type_e systematic =
        model::exhaustive ? rl::fair_full_search_scheduler_type : rl::fair_context_bound_scheduler_type;

    *out_runs = 0;
    if (!model_search<model>(report, systematic, 0, out_runs))
        return false;
    for (unsigned stretch = 0; stretch < MODEL_STRETCHES; stretch++)
        if (!model_search<model>(report, rl::random_scheduler_type, stretch, out_runs))
            return false;
    return true;
}

/* Runs the model as it is and then every mutant; names[0] is unused. Returns the exit status. */
template <typename model> static int model_main(const char *claim, const char *const *names, int mutant_count)
{
    static model_report reports[2];
    long runs = 0;
    int failed = 0;

    mutant = 0;
    if (model_holds<model>(&reports[0], &runs)) {
        std::printf("%s: holds in %ld schedules\n", claim, runs);
    } else {
        std::printf("%s: FAILS in schedule %ld:\n%s\n", claim, runs, reports[0].text());
        failed++;
    }
    for (mutant = 1; mutant <= mutant_count; mutant++) {
        if (model_holds<model>(&reports[1], &runs)) {
            std::printf("  FAILED: %s: breaks nothing, so the model does not check it\n", names[mutant]);
            failed++;
        } else {
            std::printf("  %s: found in schedule %ld\n", names[mutant], runs);
        }
    }
    return failed ? 1 : 0;
}

#endif
