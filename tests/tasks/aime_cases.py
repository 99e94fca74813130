"""Answers to problems of AIME, whose references are integers from 0 to 999, by hand."""

# Reference, message, whether it is right
AIME_CASES = [
    ("204", "\\boxed{204}", True),
    ("204", "The answer is $\\boxed{204}$.", True),
    ("204", "So $n = 204$ and thus the final answer is \\boxed{204}", True),
    ("204", "\\boxed{205}", False),
    ("204", "\\boxed{20}4", False),
    ("204", "The answer is $204$.", True),
    ("204", "The answer is 204, I think", False),  # no LaTeX: the instruction asks for a box
    ("204", "", False),
    ("204", "\\boxed{}", False),
    ("33", "\\boxed{033}", True),
    ("33", "\\boxed{33.0}", True),
    ("33", "\\boxed{33.5}", False),
    ("33", "\\boxed{+33}", True),
    ("33", "\\boxed{-33}", False),
    ("33", "\\boxed{\\frac{66}{2}}", True),
    ("33", "\\boxed{\\dfrac{99}{3}}", True),
    ("33", "\\boxed{\\frac{33}{2}}", False),
    ("33", "First \\boxed{12}, no: \\boxed{33}", True),  # boxed twice: the last one counts
    ("33", "First \\boxed{33}, no: \\boxed{12}", False),
    ("33", "<think>It is \\boxed{33}.</think>\\boxed{33}", True),
    ("33", "<think>It is \\boxed{33}.</think>I do not know.", False),  # in thoughts only
    ("33", "<think>It is \\boxed{33}, or", False),  # never ended
    ("33", "It is \\boxed{12}.</think>\\boxed{33}", True),  # the template opened the thought
    ("33", "<think>\\boxed{12}</think>a<think>\\boxed{33}", False),
    ("809", "\\boxed{809^{1}}", True),
    ("809", "\\boxed{809 \\text{ units}}", True),
    ("809", "\\boxed{m+n=809}", True),
    ("809", "$m+n=\\boxed{809}$", True),
    ("809", "\\boxed{800+9}", True),
    ("809", "\\boxed{800+19}", False),
    ("0", "\\boxed{0}", True),
    ("0", "\\boxed{000}", True),
    ("0", "\\boxed{1}", False),
    ("73", "\\boxed{\\textbf{73}}", True),
    ("73", "\\fbox{73}", False),
]
