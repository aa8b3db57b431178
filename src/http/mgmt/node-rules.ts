import type { NodeRules } from '../../core/ports/node-rules.ts';

/** What an operator has to do something about now. */
export function rulesProblems(rules: readonly NodeRules[]): readonly string[] {
  return rules.flatMap(({ worker, failure }) =>
    failure === undefined
      ? []
      : [`The network rules of the node of ${worker} can't be checked or put back: ${failure}.`],
  );
}

/** What an operator should know of the last day. */
export function rulesNotices(rules: readonly NodeRules[]): readonly string[] {
  return rules.flatMap(({ worker, repairs, lastRepair }) =>
    lastRepair === undefined
      ? []
      : [
          `Network rules on the node of ${worker} were missing or altered and have been put back, ${repairs} times, last at ${lastRepair.at.toISOString()} (${lastRepair.altered}).`,
        ],
  );
}
