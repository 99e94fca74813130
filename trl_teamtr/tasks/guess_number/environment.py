"""Guess-a-number through tools: everybody may guess, and each agent may hear one of the two counts."""

from .rules import IN_PLACE, MISPLACED, all_hints


# Which methods an agent may call, by what it hears: `Agent("a", tools=IN_PLACE_TOOLS)`
IN_PLACE_TOOLS = ["guess", "hear_in_place"]
MISPLACED_TOOLS = ["guess", "hear_misplaced"]


class GuessNumber:
    """
    One secret number for the whole team. An `environment_factory` of TRL: public methods are tools, `reset` begins a
    rollout, `get_reward` is 1 if a guess was right. A list of calls has the same results each time.

    Args:
        max_guesses (`int`): Guesses that the team has. So few that one of the two counts is not enough: with 3 for 2
            digits out of 4, both find every number, either one alone at most three quarters (docs/worlds.md).
    """

    deterministic = True

    def __init__(self, max_guesses: int = 10):
        self._max_guesses = max_guesses
        self._guesses: list[str] = []
        self._secret, self._alphabet = "", ""

    def reset(self, secret: str, alphabet: str, **row) -> str:
        """
        Begin anew.

        Args:
            secret (`str`): The number.
            alphabet (`str`): The symbols that a number may have.
            row: The other columns of the row, which are not needed.
        """
        self._secret, self._alphabet, self._guesses = secret, alphabet, []
        return f"\nYou have {self._max_guesses} guesses."

    def guess(self, number: str) -> str:
        """
        Guess the secret number. The feedback is not told here.

        Args:
            number: The guess, for example 012.

        Returns:
            Whether the number was found, and how many guesses are left.
        """
        if self._secret in self._guesses:
            return f"The number was found already: {self._secret}."
        if len(self._guesses) == self._max_guesses:
            raise ValueError("There are no guesses left.")
        if (
            len(number) != len(self._secret)
            or len(set(number)) != len(number)
            or not set(number) <= set(self._alphabet)
        ):
            raise ValueError(f"A guess has {len(self._secret)} different digits out of {self._alphabet}.")
        self._guesses.append(number)
        left = self._max_guesses - len(self._guesses)
        return f"{number} is the number." if number == self._secret else f"{number} is wrong. {left} guesses are left."

    def hear_in_place(self) -> str:
        """
        Hear, for each guess so far, how many digits are right and in the right place.

        Returns:
            Each guess and its count, in order.
        """
        return self._hear(IN_PLACE)

    def hear_misplaced(self) -> str:
        """
        Hear, for each guess so far, how many digits are right but in the wrong place.

        Returns:
            Each guess and its count, in order.
        """
        return self._hear(MISPLACED)

    def get_reward(self) -> float:
        """1 if the number was guessed, else 0."""
        return float(self._secret in self._guesses)

    def _hear(self, kind: int) -> str:
        hints = [hint for hint in all_hints(self._secret, self._guesses) if hint.kind == kind]
        return "\n".join(f"{hint.guess}: {hint.digits}" for hint in hints) or "There was no guess yet."
