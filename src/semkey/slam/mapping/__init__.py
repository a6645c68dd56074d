"""What happens around new keyframes: new landmarks, adjustment, culling."""
