"""Generated C on emulated microcontrollers: is it right there, and what does it take?"""
