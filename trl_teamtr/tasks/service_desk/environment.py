"""The database of a case, and what the assistant and the user can do with it."""

from copy import deepcopy
from typing import Any

from .cases import load_case


# Which methods each party may call: `Agent("assistant", tools=ASSISTANT_TOOLS)`
ASSISTANT_TOOLS = ["look_up", "send_bill", "resume_line", "allow_roaming"]
USER_TOOLS = ["check_phone", "pay_bill", "toggle_airplane_mode", "toggle_roaming"]


class ServiceDesk:
    """
    One database for the assistant and the user. An `environment_factory` of TRL: public methods are tools, `reset` begins
    a rollout. Its reward, [`~trl_teamtr.tasks.service_desk.reward.service_desk_reward`], also reads what was said.

    A list of calls has the same results each time, and the state can be kept: `kept = desk.snapshot()`,
    `desk.restore(kept)`.

    Attributes:
        database (`dict`): `accounts`, by number, and `phone`, the user's.
    """

    deterministic = True

    def __init__(self):
        self.database: dict[str, Any] = {}
        self._number = ""

    def reset(self, case: str, **row) -> None:
        """
        Begin anew.

        Args:
            case (`str`): The case, as text.
            row: The other columns of the row, which are not needed.
        """
        loaded = load_case(case)
        self.database, self._number = loaded["database"], loaded["number"]

    def snapshot(self) -> dict:
        """
        The state, to be given to `restore`.

        Returns:
            A copy of the database, and the number of the user's phone.
        """
        return {"database": deepcopy(self.database), "number": self._number}

    def restore(self, state: dict) -> None:
        """
        Go back to a state.

        Args:
            state: What `snapshot` returned; it may be restored again.
        """
        self.database, self._number = deepcopy(state["database"]), state["number"]

    def look_up(self, number: str) -> str:
        """
        Look up the account of a phone.

        Args:
            number: The number of the phone.

        Returns:
            Its plan, the data that is left, the state of its bill and its line, and whether roaming is allowed.
        """
        account = self._account(number)
        return (
            f"plan: {account['plan']}, data left: {account['data_left']} GB, bill: {account['bill']}, "
            f"line: {account['line']}, roaming: {'allowed' if account['roaming'] else 'not allowed'}"
        )

    def send_bill(self, number: str) -> str:
        """
        Send the overdue bill of an account to its customer, who can then pay it.

        Args:
            number: The number of the phone.
        """
        account = self._account(number)
        if account["bill"] != "overdue":
            raise ValueError(f"{number} has no overdue bill.")
        account["bill"] = "sent"
        return "The bill was sent."

    def resume_line(self, number: str) -> str:
        """
        Resume a suspended line. Its bill has to be paid first.

        Args:
            number: The number of the phone.
        """
        account = self._account(number)
        if account["line"] != "suspended":
            raise ValueError(f"The line of {number} is not suspended.")
        if account["bill"] != "paid":
            raise ValueError(f"The bill of {number} is not paid.")
        account["line"] = "active"
        return "The line is active."

    def allow_roaming(self, number: str) -> str:
        """
        Allow a phone to connect abroad.

        Args:
            number: The number of the phone.
        """
        self._account(number)["roaming"] = True
        return "Roaming is allowed."

    def check_phone(self) -> str:
        """
        Look at your phone.

        Returns:
            Whether it has a connection, and the state of airplane mode and roaming.
        """
        phone, account = self.database["phone"], self._account(self._number)
        roams = not phone["abroad"] or (phone["roaming"] and account["roaming"])
        connected = account["line"] == "active" and not phone["airplane_mode"] and roams
        return ", ".join(
            [
                "connected" if connected else "no connection",
                f"airplane mode: {'on' if phone['airplane_mode'] else 'off'}",
                f"roaming: {'on' if phone['roaming'] else 'off'}",
            ]
        )

    def pay_bill(self) -> str:
        """
        Pay the bill that you were sent.
        """
        account = self._account(self._number)
        if account["bill"] != "sent":
            raise ValueError("You were sent no bill.")
        account["bill"] = "paid"
        return "The bill is paid."

    def toggle_airplane_mode(self) -> str:
        """
        Turn the airplane mode of your phone on or off.
        """
        return self._toggle("airplane_mode", "airplane mode")

    def toggle_roaming(self) -> str:
        """
        Turn roaming on your phone on or off.
        """
        return self._toggle("roaming", "roaming")

    def _toggle(self, key: str, name: str) -> str:
        phone = self.database["phone"]
        phone[key] = not phone[key]
        return f"{name}: {'on' if phone[key] else 'off'}"

    def _account(self, number: str) -> dict[str, Any]:
        accounts = self.database["accounts"]
        if number not in accounts:
            raise ValueError(f"There is no account with the number {number}.")
        return accounts[number]
